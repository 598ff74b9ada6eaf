;; What a step of training computes outside its graphs, for all weights: sums of gradients, the way from and to the matrices of the graphs, AdamW. In float32, on
;; memory that all lanes share. `arithmetic.ts` says what each function is for and calls it.
;;
;; Addresses and sizes are in bytes, and a number has 4. Arrays begin at multiples of 64 bytes; what lies between the end of one and the next multiple belongs to
;; it and is 0, so that whole vectors can be read and written. (4 numbers in a vector; a tile is 4 x 4.)
(module
  (import "lanes" "memory" (memory i64 1 262144 shared))

  ;; sum = (begins ? 0 : sum) + each of `count` arrays, which lie `stride` apart, in their order.
  (func (export "sum")
    (param $sum i64) (param $size i64) (param $first i64) (param $stride i64) (param $count i32) (param $begins i32)
    (local $end i64) (local $at i64) (local $left i32) (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $end (i64.add (local.get $sum) (local.get $size)))
    (block $done
      (loop $line
        (br_if $done (i64.ge_u (local.get $sum) (local.get $end)))
        (if (local.get $begins)
          (then
            (local.set $a (v128.const f32x4 0 0 0 0))
            (local.set $b (v128.const f32x4 0 0 0 0))
            (local.set $c (v128.const f32x4 0 0 0 0))
            (local.set $d (v128.const f32x4 0 0 0 0)))
          (else
            (local.set $a (v128.load (local.get $sum)))
            (local.set $b (v128.load offset=16 (local.get $sum)))
            (local.set $c (v128.load offset=32 (local.get $sum)))
            (local.set $d (v128.load offset=48 (local.get $sum)))))
        (local.set $at (local.get $first))
        (local.set $left (local.get $count))
        (block $added
          (loop $array
            (br_if $added (i32.eqz (local.get $left)))
            (local.set $a (f32x4.add (local.get $a) (v128.load (local.get $at))))
            (local.set $b (f32x4.add (local.get $b) (v128.load offset=16 (local.get $at))))
            (local.set $c (f32x4.add (local.get $c) (v128.load offset=32 (local.get $at))))
            (local.set $d (f32x4.add (local.get $d) (v128.load offset=48 (local.get $at))))
            (local.set $at (i64.add (local.get $at) (local.get $stride)))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br $array)))
        (v128.store (local.get $sum) (local.get $a))
        (v128.store offset=16 (local.get $sum) (local.get $b))
        (v128.store offset=32 (local.get $sum) (local.get $c))
        (v128.store offset=48 (local.get $sum) (local.get $d))
        (local.set $sum (i64.add (local.get $sum) (i64.const 64)))
        (local.set $first (i64.add (local.get $first) (i64.const 64)))
        (br $line))))

  ;; The sum of the squares, added up in float64.
  (func (export "squares") (param $at i64) (param $size i64) (result f64)
    (local $end i64) (local $x v128) (local $low v128) (local $high v128)
    (local.set $end (i64.add (local.get $at) (local.get $size)))
    (block $done
      (loop $vector
        (br_if $done (i64.ge_u (local.get $at) (local.get $end)))
        (local.set $x (v128.load (local.get $at)))
        (local.set $low (f64x2.add (local.get $low) (call $square (f64x2.promote_low_f32x4 (local.get $x)))))
        (local.set $high (f64x2.add (local.get $high) (call $square (f64x2.promote_low_f32x4 (call $upper (local.get $x))))))
        (local.set $at (i64.add (local.get $at) (i64.const 16)))
        (br $vector)))
    (local.set $low (f64x2.add (local.get $low) (local.get $high)))
    (f64.add (f64x2.extract_lane 0 (local.get $low)) (f64x2.extract_lane 1 (local.get $low))))
  (func $square (param $x v128) (result v128)
    (f64x2.mul (local.get $x) (local.get $x)))
  ;; The upper half of a vector in its lower half.
  (func $upper (param $x v128) (result v128)
    (i8x16.shuffle 8 9 10 11 12 13 14 15 8 9 10 11 12 13 14 15 (local.get $x) (local.get $x)))

  ;; With d = scale g: m = beta1 m + rest1 d, v = beta2 v + rest2 d^2, p = decay p - step m / (sqrt(v) + epsilon).
  (func (export "adamw")
    (param $p i64) (param $size i64) (param $m i64) (param $v i64) (param $g i64) (param $scale f32)
    (param $beta1 f32) (param $rest1 f32) (param $beta2 f32) (param $rest2 f32) (param $decay f32) (param $step f32) (param $epsilon f32)
    (local $end i64) (local $d v128) (local $first v128) (local $second v128)
    (local.set $end (i64.add (local.get $p) (local.get $size)))
    (block $done
      (loop $vector
        (br_if $done (i64.ge_u (local.get $p) (local.get $end)))
        (local.set $d (f32x4.mul (f32x4.splat (local.get $scale)) (v128.load (local.get $g))))
        (local.set $first
          (f32x4.add
            (f32x4.mul (f32x4.splat (local.get $beta1)) (v128.load (local.get $m)))
            (f32x4.mul (f32x4.splat (local.get $rest1)) (local.get $d))))
        (local.set $second
          (f32x4.add
            (f32x4.mul (f32x4.splat (local.get $beta2)) (v128.load (local.get $v)))
            (f32x4.mul (f32x4.splat (local.get $rest2)) (f32x4.mul (local.get $d) (local.get $d)))))
        (v128.store (local.get $m) (local.get $first))
        (v128.store (local.get $v) (local.get $second))
        (v128.store (local.get $p)
          (f32x4.sub
            (f32x4.mul (f32x4.splat (local.get $decay)) (v128.load (local.get $p)))
            (f32x4.div
              (f32x4.mul (f32x4.splat (local.get $step)) (local.get $first))
              (f32x4.add (f32x4.sqrt (local.get $second)) (f32x4.splat (local.get $epsilon))))))
        (local.set $p (i64.add (local.get $p) (i64.const 16)))
        (local.set $m (i64.add (local.get $m) (i64.const 16)))
        (local.set $v (i64.add (local.get $v) (i64.const 16)))
        (local.set $g (i64.add (local.get $g) (i64.const 16)))
        (br $vector))))

  ;; Rows of a tile [a; b; c; d], of which these make the rows of its transpose.
  (func $evens (param $a v128) (param $b v128) (result v128) ;; a0 b0 a1 b1
    (i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 20 21 22 23 (local.get $a) (local.get $b)))
  (func $odds (param $a v128) (param $b v128) (result v128) ;; a2 b2 a3 b3
    (i8x16.shuffle 8 9 10 11 24 25 26 27 12 13 14 15 28 29 30 31 (local.get $a) (local.get $b)))
  (func $lows (param $a v128) (param $b v128) (result v128)
    (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (local.get $a) (local.get $b)))
  (func $highs (param $a v128) (param $b v128) (result v128)
    (i8x16.shuffle 8 9 10 11 12 13 14 15 24 25 26 27 28 29 30 31 (local.get $a) (local.get $b)))

  ;; factor times 4 gains, or factor alone where there is none (address 0).
  (func $factors (param $gain i64) (param $factor f32) (result v128)
    (if (result v128) (i64.eqz (local.get $gain))
      (then (f32x4.splat (local.get $factor)))
      (else (f32x4.mul (f32x4.splat (local.get $factor)) (v128.load (local.get $gain))))))

  ;; to [columns, rows] = the transpose of factor w diag(gain), w [rows, columns], by tiles.
  (func (export "foldTiles")
    (param $w i64) (param $to i64) (param $gain i64) (param $factor f32) (param $rows i64) (param $columns i64)
    (local $pitch i64) (local $down i64) (local $r i64) (local $c i64) (local $x i64) (local $y i64) (local $f v128)
    (local $a v128) (local $b v128) (local $s v128) (local $t v128)
    (local.set $pitch (i64.shl (local.get $columns) (i64.const 2)))
    (local.set $down (i64.shl (local.get $rows) (i64.const 2)))
    (loop $band
      (local.set $c (i64.const 0))
      (local.set $x (i64.add (local.get $w) (i64.mul (local.get $r) (local.get $pitch))))
      (local.set $y (i64.add (local.get $to) (i64.shl (local.get $r) (i64.const 2))))
      (loop $tile
        (local.set $f
          (call $factors
            (if (result i64) (i64.eqz (local.get $gain))
              (then (i64.const 0))
              (else (i64.add (local.get $gain) (i64.shl (local.get $c) (i64.const 2)))))
            (local.get $factor)))
        (local.set $a (f32x4.mul (local.get $f) (v128.load (local.get $x))))
        (local.set $b (f32x4.mul (local.get $f) (v128.load (i64.add (local.get $x) (local.get $pitch)))))
        (local.set $s (call $evens (local.get $a) (local.get $b)))
        (local.set $t (call $odds (local.get $a) (local.get $b)))
        (local.set $a (f32x4.mul (local.get $f) (v128.load (i64.add (local.get $x) (i64.shl (local.get $pitch) (i64.const 1))))))
        (local.set $b (f32x4.mul (local.get $f) (v128.load (i64.add (local.get $x) (i64.mul (local.get $pitch) (i64.const 3))))))
        (v128.store (local.get $y) (call $lows (local.get $s) (call $evens (local.get $a) (local.get $b))))
        (local.set $y (i64.add (local.get $y) (local.get $down)))
        (v128.store (local.get $y) (call $highs (local.get $s) (call $evens (local.get $a) (local.get $b))))
        (local.set $y (i64.add (local.get $y) (local.get $down)))
        (v128.store (local.get $y) (call $lows (local.get $t) (call $odds (local.get $a) (local.get $b))))
        (local.set $y (i64.add (local.get $y) (local.get $down)))
        (v128.store (local.get $y) (call $highs (local.get $t) (call $odds (local.get $a) (local.get $b))))
        (local.set $y (i64.add (local.get $y) (local.get $down)))
        (local.set $x (i64.add (local.get $x) (i64.const 16)))
        (br_if $tile (i64.lt_u (local.tee $c (i64.add (local.get $c) (i64.const 4))) (local.get $columns))))
      (br_if $band (i64.lt_u (local.tee $r (i64.add (local.get $r) (i64.const 4))) (local.get $rows)))))

  ;; into [rows, columns] = (adds ? into : 0) + d diag(factor gain), d the transpose of sum [columns, rows], by tiles; to the gain's gradient dg in float64, unless
  ;; its address is 0, factor times the sums of d w over each column.
  (func (export "unfoldTiles")
    (param $sum i64) (param $w i64) (param $into i64) (param $gain i64) (param $dg i64) (param $factor f32) (param $rows i64) (param $columns i64) (param $adds i32)
    (local $pitch i64) (local $down i64) (local $r i64) (local $c i64) (local $x i64) (local $y i64) (local $z i64) (local $f v128)
    (local $a v128) (local $b v128) (local $s v128) (local $t v128) (local $u v128) (local $v v128) (local $p v128)
    (local.set $pitch (i64.shl (local.get $columns) (i64.const 2)))
    (local.set $down (i64.shl (local.get $rows) (i64.const 2)))
    (loop $band
      (local.set $c (i64.const 0))
      (local.set $x (i64.add (local.get $sum) (i64.shl (local.get $r) (i64.const 2))))
      (local.set $y (i64.add (local.get $w) (i64.mul (local.get $r) (local.get $pitch))))
      (local.set $z (i64.add (local.get $into) (i64.mul (local.get $r) (local.get $pitch))))
      (loop $tile
        (local.set $f
          (call $factors
            (if (result i64) (i64.eqz (local.get $gain))
              (then (i64.const 0))
              (else (i64.add (local.get $gain) (i64.shl (local.get $c) (i64.const 2)))))
            (local.get $factor)))
        (local.set $a (v128.load (local.get $x)))
        (local.set $b (v128.load (local.tee $x (i64.add (local.get $x) (local.get $down)))))
        (local.set $s (call $evens (local.get $a) (local.get $b)))
        (local.set $t (call $odds (local.get $a) (local.get $b)))
        (local.set $a (v128.load (local.tee $x (i64.add (local.get $x) (local.get $down)))))
        (local.set $b (v128.load (local.tee $x (i64.add (local.get $x) (local.get $down)))))
        (local.set $x (i64.add (local.get $x) (local.get $down)))
        (local.set $u (call $evens (local.get $a) (local.get $b)))
        (local.set $v (call $odds (local.get $a) (local.get $b)))
        (local.set $a (call $lows (local.get $s) (local.get $u)))
        (local.set $b (call $highs (local.get $s) (local.get $u)))
        (local.set $s (call $lows (local.get $t) (local.get $v)))
        (local.set $t (call $highs (local.get $t) (local.get $v)))
        (if (i64.ne (local.get $dg) (i64.const 0))
          (then
            (local.set $p
              (f32x4.add
                (f32x4.add
                  (f32x4.mul (local.get $a) (v128.load (local.get $y)))
                  (f32x4.mul (local.get $b) (v128.load (i64.add (local.get $y) (local.get $pitch)))))
                (f32x4.add
                  (f32x4.mul (local.get $s) (v128.load (i64.add (local.get $y) (i64.shl (local.get $pitch) (i64.const 1)))))
                  (f32x4.mul (local.get $t) (v128.load (i64.add (local.get $y) (i64.mul (local.get $pitch) (i64.const 3))))))))
            (local.set $p (f32x4.mul (f32x4.splat (local.get $factor)) (local.get $p)))
            (call $accumulate (i64.add (local.get $dg) (i64.shl (local.get $c) (i64.const 3))) (local.get $p))))
        (call $put (local.get $z) (f32x4.mul (local.get $f) (local.get $a)) (local.get $adds))
        (call $put (i64.add (local.get $z) (local.get $pitch)) (f32x4.mul (local.get $f) (local.get $b)) (local.get $adds))
        (call $put (i64.add (local.get $z) (i64.shl (local.get $pitch) (i64.const 1))) (f32x4.mul (local.get $f) (local.get $s)) (local.get $adds))
        (call $put (i64.add (local.get $z) (i64.mul (local.get $pitch) (i64.const 3))) (f32x4.mul (local.get $f) (local.get $t)) (local.get $adds))
        (local.set $y (i64.add (local.get $y) (i64.const 16)))
        (local.set $z (i64.add (local.get $z) (i64.const 16)))
        (br_if $tile (i64.lt_u (local.tee $c (i64.add (local.get $c) (i64.const 4))) (local.get $columns))))
      (br_if $band (i64.lt_u (local.tee $r (i64.add (local.get $r) (i64.const 4))) (local.get $rows)))))
  ;; Adds 4 numbers to 4 of float64.
  (func $accumulate (param $at i64) (param $x v128)
    (v128.store (local.get $at) (f64x2.add (v128.load (local.get $at)) (f64x2.promote_low_f32x4 (local.get $x))))
    (v128.store offset=16 (local.get $at)
      (f64x2.add (v128.load offset=16 (local.get $at)) (f64x2.promote_low_f32x4 (call $upper (local.get $x))))))
  (func $put (param $at i64) (param $x v128) (param $adds i32)
    (v128.store (local.get $at)
      (if (result v128) (local.get $adds)
        (then (f32x4.add (local.get $x) (v128.load (local.get $at))))
        (else (local.get $x))))))
