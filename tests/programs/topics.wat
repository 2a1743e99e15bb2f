;; With an argument: broadcasts it on the topic "news". Without: subscribes to the topic, says
;; "listening", sends the first message that comes, and unsubscribes.
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "inferlet:core/message" (instance $message
    (alias outer 1 $pollable (type $outer-pollable))
    (export "pollable" (type $pollable (eq $outer-pollable)))
    (export "send" (func (param "message" string)))
    (export "broadcast" (func (param "topic" string) (param "message" string)))
    (export "subscription" (type $subscription (sub resource)))
    (export "subscribe" (func (param "topic" string) (result (own $subscription))))
    (export "[method]subscription.pollable"
      (func (param "self" (borrow $subscription)) (result (own $pollable))))
    (export "[method]subscription.get"
      (func (param "self" (borrow $subscription)) (result (option string))))
    (export "[method]subscription.unsubscribe" (func (param "self" (borrow $subscription))))))
  (import "inferlet:core/runtime" (instance $runtime
    (export "get-arguments" (func (result (list string))))))

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
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $send (canon lower (func $message "send") (memory (core memory $memory "memory"))))
  (core func $broadcast (canon lower (func $message "broadcast")
    (memory (core memory $memory "memory"))))
  (core func $subscribe (canon lower (func $message "subscribe")
    (memory (core memory $memory "memory"))))
  (core func $sub-pollable (canon lower (func $message "[method]subscription.pollable")))
  (core func $sub-get (canon lower (func $message "[method]subscription.get")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $unsubscribe (canon lower (func $message "[method]subscription.unsubscribe")))
  (core func $get-arguments (canon lower (func $runtime "get-arguments")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "next" (global $next (mut i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "send" (func $send (param i32 i32)))
    (import "host" "broadcast" (func $broadcast (param i32 i32 i32 i32)))
    (import "host" "subscribe" (func $subscribe (param i32 i32) (result i32)))
    (import "host" "sub-pollable" (func $sub-pollable (param i32) (result i32)))
    (import "host" "sub-get" (func $sub-get (param i32 i32)))
    (import "host" "unsubscribe" (func $unsubscribe (param i32)))
    (import "host" "get-arguments" (func $get-arguments (param i32)))

    (data (i32.const 1024) "news")
    (data (i32.const 1056) "listening")
    (func (export "run") (result i32)
      (local $subscription i32)
      (call $get-arguments (i32.const 16))
      (if (i32.load (i32.const 20))
        (then
          (call $broadcast (i32.const 1024) (i32.const 4)
            (i32.load (i32.load (i32.const 16))) (i32.load offset=4 (i32.load (i32.const 16))))
          (return (i32.const 0))))
      (local.set $subscription (call $subscribe (i32.const 1024) (i32.const 4)))
      (call $sub-get (local.get $subscription) (i32.const 32))
      (if (i32.load8_u (i32.const 32)) (then (unreachable)))
      (call $send (i32.const 1056) (i32.const 9))
      (call $block (call $sub-pollable (local.get $subscription)))
      (call $sub-get (local.get $subscription) (i32.const 32))
      (call $send (i32.load (i32.const 36)) (i32.load (i32.const 40)))
      (call $unsubscribe (local.get $subscription))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "block" (func $block))
      (export "send" (func $send))
      (export "broadcast" (func $broadcast))
      (export "subscribe" (func $subscribe))
      (export "sub-pollable" (func $sub-pollable))
      (export "sub-get" (func $sub-get))
      (export "unsubscribe" (func $unsubscribe))
      (export "get-arguments" (func $get-arguments))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
