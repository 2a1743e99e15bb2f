;; Says nothing, and returns a value.
(component
  (import "inferlet:core/runtime" (instance $runtime
    (export "set-return" (func (param "value" string)))))

  (core module $memory (memory (export "memory") 1))
  (core instance $memory (instantiate $memory))
  (core func $set-return (canon lower (func $runtime "set-return")
    (memory (core memory $memory "memory"))))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "host" "set-return" (func $set-return (param i32 i32)))

    (data (i32.const 1024) "forty-two")
    (func (export "run") (result i32)
      (call $set-return (i32.const 1024) (i32.const 9))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "set-return" (func $set-return))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
