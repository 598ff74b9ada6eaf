/** The arithmetic of AdamW (arXiv 1711.05101, Algorithm 2) on stretches of parameters, in double precision over float32 state. Runs on lanes. */

/** A stretch of one parameter with its state and gradient, all of one length. The first three are changed. */
export interface AdamwPart {
  parameter: Float32Array;
  firstMoment: Float32Array;
  secondMoment: Float32Array;
  gradient: Float32Array;
  /** 1 - rate * weight decay. */
  decay: number;
}

export interface AdamwNumbers {
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Multiplies every gradient (clipping). */
  gradientScale: number;
  /** Learning rate over the first bias correction, 1 - beta1^t. */
  stepSize: number;
  /** Root of the second bias correction, 1 - beta2^t. */
  rootCorrection: number;
}

export function adamw(parts: readonly AdamwPart[], numbers: AdamwNumbers): void {
  const { beta1, beta2, gradientScale } = numbers;
  // stepSize * first / (root / rootCorrection + epsilon), with one division fewer.
  const stepSize = numbers.stepSize * numbers.rootCorrection;
  const epsilon = numbers.epsilon * numbers.rootCorrection;
  for (const { parameter: p, firstMoment: m, secondMoment: v, gradient: g, decay } of parts) {
    for (let i = 0; i < p.length; i++) {
      const d = g[i]! * gradientScale;
      const first = beta1 * m[i]! + (1 - beta1) * d;
      const second = beta2 * v[i]! + (1 - beta2) * d * d;
      m[i] = first;
      v[i] = second;
      p[i] = p[i]! * decay - (stepSize * first) / (Math.sqrt(second) + epsilon);
    }
  }
}

/** Cuts a list of parts into `count` lists of about as many numbers; nothing is copied. */
export function shares(parts: readonly AdamwPart[], count: number): AdamwPart[][] {
  const total = parts.reduce((sum, { parameter }) => sum + parameter.length, 0);
  const out: AdamwPart[][] = [];
  for (let share = 0; share < count; share++) {
    const [from, to] = [Math.floor((total * share) / count), Math.floor((total * (share + 1)) / count)];
    const list: AdamwPart[] = [];
    let at = 0;
    for (const part of parts) {
      const [a, b] = [Math.max(0, from - at), Math.min(part.parameter.length, to - at)];
      at += part.parameter.length;
      if (a >= b) continue;
      list.push({
        parameter: part.parameter.subarray(a, b),
        firstMoment: part.firstMoment.subarray(a, b),
        secondMoment: part.secondMoment.subarray(a, b),
        gradient: part.gradient.subarray(a, b),
        decay: part.decay,
      });
    }
    out.push(list);
  }
  return out;
}
