;; Keeps "blue" under its argument, sends back what it finds there and every key, and forgets it
;; again; traps if the store does not do as it is told.
(component
  (import "inferlet:core/message" (instance $message
    (export "send" (func (param "message" string)))))
  (import "inferlet:core/kvs" (instance $kvs
    (export "store-get" (func (param "key" string) (result (option string))))
    (export "store-set" (func (param "key" string) (param "value" string)))
    (export "store-delete" (func (param "key" string)))
    (export "store-exists" (func (param "key" string) (result bool)))
    (export "store-list-keys" (func (result (list string))))))
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
  (core func $send (canon lower (func $message "send") (memory (core memory $memory "memory"))))
  (core func $get-arguments (canon lower (func $runtime "get-arguments")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $store-get (canon lower (func $kvs "store-get")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $store-set (canon lower (func $kvs "store-set")
    (memory (core memory $memory "memory"))))
  (core func $store-delete (canon lower (func $kvs "store-delete")
    (memory (core memory $memory "memory"))))
  (core func $store-exists (canon lower (func $kvs "store-exists")
    (memory (core memory $memory "memory"))))
  (core func $store-list-keys (canon lower (func $kvs "store-list-keys")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "next" (global $next (mut i32)))
    (import "host" "send" (func $send (param i32 i32)))
    (import "host" "get-arguments" (func $get-arguments (param i32)))
    (import "host" "store-get" (func $store-get (param i32 i32 i32)))
    (import "host" "store-set" (func $store-set (param i32 i32 i32 i32)))
    (import "host" "store-delete" (func $store-delete (param i32 i32)))
    (import "host" "store-exists" (func $store-exists (param i32 i32) (result i32)))
    (import "host" "store-list-keys" (func $store-list-keys (param i32)))

    (data (i32.const 1024) "blue")
    (func (export "run") (result i32)
      (local $key i32) (local $size i32) (local $entry i32) (local $count i32)
      (call $get-arguments (i32.const 16))
      (local.set $key (i32.load (i32.load (i32.const 16))))
      (local.set $size (i32.load offset=4 (i32.load (i32.const 16))))
      (if (call $store-exists (local.get $key) (local.get $size)) (then (unreachable)))
      (call $store-set (local.get $key) (local.get $size) (i32.const 1024) (i32.const 4))
      (if (i32.eqz (call $store-exists (local.get $key) (local.get $size))) (then (unreachable)))
      ;; The value at 32: 1, its address, its length.
      (call $store-get (local.get $key) (local.get $size) (i32.const 32))
      (if (i32.ne (i32.load8_u (i32.const 32)) (i32.const 1)) (then (unreachable)))
      (call $send (i32.load (i32.const 36)) (i32.load (i32.const 40)))
      (call $store-list-keys (i32.const 16))
      (local.set $entry (i32.load (i32.const 16)))
      (local.set $count (i32.load (i32.const 20)))
      (loop $next
        (call $send (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry)))
        (local.set $entry (i32.add (local.get $entry) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br_if $next (local.get $count)))
      (call $store-delete (local.get $key) (local.get $size))
      (call $store-get (local.get $key) (local.get $size) (i32.const 32))
      (if (i32.load8_u (i32.const 32)) (then (unreachable)))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "send" (func $send))
      (export "get-arguments" (func $get-arguments))
      (export "store-get" (func $store-get))
      (export "store-set" (func $store-set))
      (export "store-delete" (func $store-delete))
      (export "store-exists" (func $store-exists))
      (export "store-list-keys" (func $store-list-keys))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
