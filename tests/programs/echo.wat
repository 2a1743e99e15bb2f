;; Sends every message back with "echo: " before it, until it is told "stop".
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "inferlet:core/message" (instance $message
    (alias outer 1 $pollable (type $outer-pollable))
    (export "pollable" (type $pollable (eq $outer-pollable)))
    (export "receive-result" (type $receive-result (sub resource)))
    (export "[method]receive-result.pollable"
      (func (param "self" (borrow $receive-result)) (result (own $pollable))))
    (export "[method]receive-result.get"
      (func (param "self" (borrow $receive-result)) (result (option string))))
    (export "send" (func (param "message" string)))
    (export "receive" (func (result (own $receive-result))))))
  (alias export $message "receive-result" (type $receive-result))
  (import "inferlet:core/runtime" (instance $runtime
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
  (core func $send (canon lower (func $message "send") (memory (core memory $memory "memory"))))
  (core func $set-return (canon lower (func $runtime "set-return")
    (memory (core memory $memory "memory"))))
  (core func $receive (canon lower (func $message "receive")))
  (core func $result-pollable (canon lower (func $message "[method]receive-result.pollable")))
  (core func $result-get (canon lower (func $message "[method]receive-result.get")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $drop-pollable (canon resource.drop $pollable))
  (core func $drop-result (canon resource.drop $receive-result))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "next" (global $next (mut i32)))
    (import "host" "send" (func $send (param i32 i32)))
    (import "host" "set-return" (func $set-return (param i32 i32)))
    (import "host" "receive" (func $receive (result i32)))
    (import "host" "result-pollable" (func $result-pollable (param i32) (result i32)))
    (import "host" "result-get" (func $result-get (param i32 i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "drop-pollable" (func $drop-pollable (param i32)))
    (import "host" "drop-result" (func $drop-result (param i32)))

    (data (i32.const 1024) "stopped")
    (data (i32.const 2042) "echo: ")

    ;; Waits for a message, and leaves it at 16: 1, its address, its length.
    (func $next-message
      (local $result i32) (local $pollable i32)
      (local.set $result (call $receive))
      (local.set $pollable (call $result-pollable (local.get $result)))
      (call $block (local.get $pollable))
      (call $result-get (local.get $result) (i32.const 16))
      (call $drop-pollable (local.get $pollable))
      (call $drop-result (local.get $result)))

    (func (export "run") (result i32)
      (local $at i32) (local $size i32)
      (loop $again
        ;; Room for "echo: " right before the message, which is what is allocated next.
        (global.set $next (i32.const 32768))
        (call $next-message)
        (local.set $at (i32.load (i32.const 20)))
        (local.set $size (i32.load (i32.const 24)))
        (if (i32.eq (local.get $size) (i32.const 4))
          (then
            (if (i32.eq (i32.load (local.get $at)) (i32.const 0x706f7473)) ;; "stop"
              (then
                (call $set-return (i32.const 1024) (i32.const 7))
                (return (i32.const 0))))))
        (memory.copy
          (i32.sub (local.get $at) (i32.const 6)) (i32.const 2042) (i32.const 6))
        (call $send
          (i32.sub (local.get $at) (i32.const 6)) (i32.add (local.get $size) (i32.const 6)))
        (br $again))
      (unreachable)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "send" (func $send))
      (export "set-return" (func $set-return))
      (export "receive" (func $receive))
      (export "result-pollable" (func $result-pollable))
      (export "result-get" (func $result-get))
      (export "block" (func $block))
      (export "drop-pollable" (func $drop-pollable))
      (export "drop-result" (func $drop-result))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
