;; Returns its second argument: the value of the one option that it takes.
(component
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
  (core func $get-arguments (canon lower (func $runtime "get-arguments")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $set-return (canon lower (func $runtime "set-return")
    (memory (core memory $memory "memory"))))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "host" "get-arguments" (func $get-arguments (param i32)))
    (import "host" "set-return" (func $set-return (param i32 i32)))

    (func (export "run") (result i32)
      (local $argument i32)
      ;; The list at 16: its address and its count; each string: its address and its length.
      (call $get-arguments (i32.const 16))
      (if (i32.ne (i32.load (i32.const 20)) (i32.const 2)) (then (unreachable)))
      (local.set $argument (i32.add (i32.load (i32.const 16)) (i32.const 8)))
      (call $set-return (i32.load (local.get $argument)) (i32.load offset=4 (local.get $argument)))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "get-arguments" (func $get-arguments))
      (export "set-return" (func $set-return))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
