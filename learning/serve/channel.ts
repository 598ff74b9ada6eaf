/** A queue between what is told and who writes it: pushing never waits, reading does. One reader. */
export class Channel<T> {
  readonly #items: T[] = [];
  #state: 'open' | 'closed' | { error: unknown } = 'open';
  #wake = () => {};

  push(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  /** No item follows. */
  close(): void {
    this.#state = 'closed';
    this.#wake();
  }

  /** Readers get the items that are there, then the error. */
  fail(error: unknown): void {
    this.#state = { error };
    this.#wake();
  }

  /** Resolves when there is an item or no more will come; rejects if there is nothing but a failure. */
  async ready(): Promise<void> {
    while (this.#items.length === 0 && this.#state === 'open') await new Promise<void>((resolve) => (this.#wake = resolve));
    if (this.#items.length === 0 && typeof this.#state === 'object') throw this.#state.error;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      await this.ready();
      if (this.#items.length === 0) return;
      yield this.#items.shift()!;
    }
  }
}
