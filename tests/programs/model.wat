;; Asks for a model, and ends with an error of its own if there is none; with an argument it goes
;; on as if there were one.
(component
  (import "inferlet:core/common" (instance $common
    (export "model" (type $model (sub resource)))
    (export "queue" (type $queue (sub resource)))
    (export "[method]model.create-queue"
      (func (param "self" (borrow $model)) (result (own $queue))))))
  (alias export $common "model" (type $model))
  (import "inferlet:core/runtime" (instance $runtime
    (alias outer 1 $model (type $outer-model))
    (export "model" (type $model (eq $outer-model)))
    (export "get-arguments" (func (result (list string))))
    (export "get-model" (func (param "name" string) (result (option (own $model)))))
    (export "get-all-models" (func (result (list string))))))
  (import "inferlet:core/tokenize" (instance $tokenize
    (export "tokenize" (func (param "text" string) (result (list u32))))))

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
  (core func $get-model (canon lower (func $runtime "get-model")
    (memory (core memory $memory "memory"))))
  (core func $get-all-models (canon lower (func $runtime "get-all-models")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $tokenize (canon lower (func $tokenize "tokenize")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "next" (global $next (mut i32)))
    (import "host" "get-arguments" (func $get-arguments (param i32)))
    (import "host" "get-model" (func $get-model (param i32 i32 i32)))
    (import "host" "get-all-models" (func $get-all-models (param i32)))
    (import "host" "tokenize" (func $tokenize (param i32 i32 i32)))

    (data (i32.const 1024) "llama")
    (data (i32.const 1056) "there is no model")
    (data (i32.const 64) "\01\00\00\00\20\04\00\00\11\00\00\00")
    (func (export "run") (result i32)
      (call $get-arguments (i32.const 16))
      (call $get-all-models (i32.const 24))
      (if (i32.load (i32.const 28)) (then (unreachable)))
      (call $get-model (i32.const 1024) (i32.const 5) (i32.const 32))
      (if (i32.load8_u (i32.const 32)) (then (unreachable)))
      (if (i32.eqz (i32.load (i32.const 20))) (then (return (i32.const 64))))
      (call $tokenize (i32.const 1024) (i32.const 5) (i32.const 32))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "get-arguments" (func $get-arguments))
      (export "get-model" (func $get-model))
      (export "get-all-models" (func $get-all-models))
      (export "tokenize" (func $tokenize))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
