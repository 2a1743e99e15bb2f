;; Says "ready" when it waits for a blob, and sends that back, until one is empty.
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "inferlet:core/common" (instance $common
    (alias outer 1 $pollable (type $outer-pollable))
    (export "pollable" (type $pollable (eq $outer-pollable)))
    (export "blob" (type $blob (sub resource)))
    (export "[method]blob.size" (func (param "self" (borrow $blob)) (result u64)))
    (export "blob-result" (type $blob-result (sub resource)))
    (export "[method]blob-result.pollable"
      (func (param "self" (borrow $blob-result)) (result (own $pollable))))
    (export "[method]blob-result.get"
      (func (param "self" (borrow $blob-result)) (result (option (own $blob)))))))
  (alias export $common "blob" (type $blob))
  (alias export $common "blob-result" (type $blob-result))
  (import "inferlet:core/message" (instance $message
    (alias outer 1 $pollable (type $outer-pollable))
    (export "pollable" (type $pollable (eq $outer-pollable)))
    (export "send" (func (param "message" string)))
    (alias outer 1 $blob (type $outer-blob))
    (export "blob" (type $blob (eq $outer-blob)))
    (alias outer 1 $blob-result (type $outer-blob-result))
    (export "blob-result" (type $blob-result (eq $outer-blob-result)))
    (export "send-blob" (func (param "blob" (own $blob))))
    (export "receive-blob" (func (result (own $blob-result))))))
  (import "inferlet:core/runtime" (instance $runtime
    (export "set-return" (func (param "value" string)))))

  (core module $memory (memory (export "memory") 1))
  (core instance $memory (instantiate $memory))
  (core func $set-return (canon lower (func $runtime "set-return")
    (memory (core memory $memory "memory"))))
  (core func $send (canon lower (func $message "send") (memory (core memory $memory "memory"))))
  (core func $receive-blob (canon lower (func $message "receive-blob")))
  (core func $blob-pollable (canon lower (func $common "[method]blob-result.pollable")))
  (core func $blob-get (canon lower (func $common "[method]blob-result.get")
    (memory (core memory $memory "memory"))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $drop-pollable (canon resource.drop $pollable))
  (core func $drop-blob-result (canon resource.drop $blob-result))
  (core func $blob-size (canon lower (func $common "[method]blob.size")))
  (core func $send-blob (canon lower (func $message "send-blob")))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "host" "set-return" (func $set-return (param i32 i32)))
    (import "host" "send" (func $send (param i32 i32)))
    (import "host" "receive-blob" (func $receive-blob (result i32)))
    (import "host" "blob-pollable" (func $blob-pollable (param i32) (result i32)))
    (import "host" "blob-get" (func $blob-get (param i32 i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "drop-pollable" (func $drop-pollable (param i32)))
    (import "host" "drop-blob-result" (func $drop-blob-result (param i32)))
    (import "host" "blob-size" (func $blob-size (param i32) (result i64)))
    (import "host" "send-blob" (func $send-blob (param i32)))

    (data (i32.const 1024) "an empty blob came")
    (data (i32.const 1056) "ready")

    ;; Waits for a blob, and says so; its handle.
    (func $next-blob (result i32)
      (local $result i32) (local $pollable i32)
      (local.set $result (call $receive-blob))
      (local.set $pollable (call $blob-pollable (local.get $result)))
      (call $send (i32.const 1056) (i32.const 5))
      (call $block (local.get $pollable))
      (call $blob-get (local.get $result) (i32.const 32))
      (call $drop-pollable (local.get $pollable))
      (call $drop-blob-result (local.get $result))
      (i32.load (i32.const 36)))

    (func (export "run") (result i32)
      (local $blob i32)
      (loop $again
        (local.set $blob (call $next-blob))
        (if (i64.eqz (call $blob-size (local.get $blob)))
          (then
            (call $set-return (i32.const 1024) (i32.const 18))
            (return (i32.const 0))))
        (call $send-blob (local.get $blob))
        (br $again))
      (unreachable)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "set-return" (func $set-return))
      (export "send" (func $send))
      (export "receive-blob" (func $receive-blob))
      (export "blob-pollable" (func $blob-pollable))
      (export "blob-get" (func $blob-get))
      (export "block" (func $block))
      (export "drop-pollable" (func $drop-pollable))
      (export "drop-blob-result" (func $drop-blob-result))
      (export "blob-size" (func $blob-size))
      (export "send-blob" (func $send-blob))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
