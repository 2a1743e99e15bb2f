;; Receives one message, prints it on stdout, sends it back, and returns it.
(component
  (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (export "output-stream" (type $output-stream (sub resource)))
    (type $stream-error-cases (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error-cases)))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $outer-output-stream))
    (export "output-stream" (type $output-stream (eq $outer-output-stream)))
    (export "get-stdout" (func (result (own $output-stream))))))
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
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $memory "memory"))))
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
    (import "host" "get-stdout" (func $get-stdout (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "send" (func $send (param i32 i32)))
    (import "host" "set-return" (func $set-return (param i32 i32)))
    (import "host" "receive" (func $receive (result i32)))
    (import "host" "result-pollable" (func $result-pollable (param i32) (result i32)))
    (import "host" "result-get" (func $result-get (param i32 i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "drop-pollable" (func $drop-pollable (param i32)))
    (import "host" "drop-result" (func $drop-result (param i32)))

    (data (i32.const 1024) "\n")

    (func $print (param $at i32) (param $size i32)
      (call $write (call $get-stdout) (local.get $at) (local.get $size) (i32.const 64)))

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
      (call $next-message)
      (local.set $at (i32.load (i32.const 20)))
      (local.set $size (i32.load (i32.const 24)))
      (call $print (local.get $at) (local.get $size))
      (call $print (i32.const 1024) (i32.const 1))
      (call $send (local.get $at) (local.get $size))
      (call $set-return (local.get $at) (local.get $size))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "get-stdout" (func $get-stdout))
      (export "write" (func $write))
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
