;; Writes N pieces of 64 KiB to stdout; N is its last argument, in decimal.
;; Each begins with its number, counted from 0, as 16 decimal digits; dots and a newline follow.
(component
  (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (export "output-stream" (type $output-stream (sub resource)))
    (type $stream-error-cases (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error-cases)))
    (export "[method]output-stream.check-write"
      (func (param "self" (borrow $output-stream)) (result (result u64 (error $stream-error)))))
    (export "[method]output-stream.write"
      (func (param "self" (borrow $output-stream)) (param "contents" (list u8))
        (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $outer-output-stream))
    (export "output-stream" (type $output-stream (eq $outer-output-stream)))
    (export "get-stdout" (func (result (own $output-stream))))))
  (import "inferlet:core/runtime" (instance $runtime
    (export "get-arguments" (func (result (list string))))
    (export "set-return" (func (param "value" string)))))

  ;; Memory, and an allocator that only goes forward: a program sets $next back when it is done.
  (core module $memory
    (memory (export "memory") 1)
    (global $next (export "next") (mut i32) (i32.const 32768))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (block $fits
        (loop $again
          (br_if $fits
            (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
          (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (unreachable))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $check-write (canon lower (func $streams "[method]output-stream.check-write")
    (memory (core memory $memory "memory"))))
  (core func $write-much (canon lower (func $streams "[method]output-stream.write")
    (memory (core memory $memory "memory"))))
  (core func $get-arguments (canon lower (func $runtime "get-arguments")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $set-return (canon lower (func $runtime "set-return")
    (memory (core memory $memory "memory"))))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "next" (global $next (mut i32)))
    (import "host" "get-stdout" (func $get-stdout (result i32)))
    (import "host" "check-write" (func $check-write (param i32 i32)))
    (import "host" "write-much" (func $write-much (param i32 i32 i32 i32)))
    (import "host" "get-arguments" (func $get-arguments (param i32)))
    (import "host" "set-return" (func $set-return (param i32 i32)))

    (data (i32.const 1024) "flooded")
    ;; The piece is at 131072. Writes $number in decimal into its first 16 bytes.
    (func $label (param $number i32)
      (local $at i32)
      (local.set $at (i32.const 131088))
      (loop $digit
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (i32.store8 (local.get $at)
          (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
        (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
        (br_if $digit (i32.gt_u (local.get $at) (i32.const 131072)))))
    (func $wanted (result i32)
      (local $at i32) (local $end i32) (local $number i32)
      (call $get-arguments (i32.const 16))
      (if (i32.eqz (i32.load (i32.const 20))) (then (return (i32.const 0))))
      ;; The last of the list: each takes 8 bytes, its address and its length.
      (local.set $at
        (i32.add (i32.load (i32.const 16))
          (i32.mul (i32.sub (i32.load (i32.const 20)) (i32.const 1)) (i32.const 8))))
      (local.set $end
        (i32.add (i32.load (local.get $at)) (i32.load offset=4 (local.get $at))))
      (local.set $at (i32.load (local.get $at)))
      (block $done
        (loop $digit
          (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
          (local.set $number
            (i32.add (i32.mul (local.get $number) (i32.const 10))
              (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $digit)))
      (local.get $number))
    (func (export "run") (result i32)
      (local $stdout i32) (local $number i32) (local $wanted i32)
      (local.set $wanted (call $wanted))
      (drop (memory.grow (i32.const 3)))
      (memory.fill (i32.const 131072) (i32.const 46) (i32.const 65536))
      (i32.store8 (i32.const 196607) (i32.const 10))
      (local.set $stdout (call $get-stdout))
      (block $done
        (loop $piece
          (br_if $done (i32.ge_u (local.get $number) (local.get $wanted)))
          (call $label (local.get $number))
          (call $check-write (local.get $stdout) (i32.const 32))
          (if (i64.lt_u (i64.load (i32.const 40)) (i64.const 65536)) (then (unreachable)))
          (call $write-much (local.get $stdout) (i32.const 131072) (i32.const 65536) (i32.const 64))
          (local.set $number (i32.add (local.get $number) (i32.const 1)))
          (br $piece)))
      (call $set-return (i32.const 1024) (i32.const 7))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "get-stdout" (func $get-stdout))
      (export "check-write" (func $check-write))
      (export "write-much" (func $write-much))
      (export "get-arguments" (func $get-arguments))
      (export "set-return" (func $set-return))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
