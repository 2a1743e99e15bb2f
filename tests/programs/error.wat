;; Ends with an error of its own.
(component

  (core module $memory (memory (export "memory") 1))
  (core instance $memory (instantiate $memory))

  (core module $main
    (import "memory" "memory" (memory 1))

    (data (i32.const 1024) "it went wrong")
    ;; The result: 1 (err), the address of the text, its length.
    (data (i32.const 16) "\01\00\00\00\00\04\00\00\0d\00\00\00")
    (func (export "run") (result i32)
      (i32.const 16)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
