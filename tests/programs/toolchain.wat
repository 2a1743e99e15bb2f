;; Calls what toolchains link in and few programs use, and traps where an answer is not as it should
;; be. Types are those of WASI 0.2.0, whole. With an argument it goes on to write more zeroes at once
;; than is allowed.
(component
  (import "wasi:io/error@0.2.0" (instance $errors
    (export "error" (type $error (sub resource)))
    (export "[method]error.to-debug-string"
      (func (param "self" (borrow $error)) (result string)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (export "input-stream" (type $input-stream (sub resource)))
    (export "output-stream" (type $output-stream (sub resource)))
    (type $stream-error-cases (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error-cases)))
    (export "[method]input-stream.read"
      (func (param "self" (borrow $input-stream)) (param "len" u64)
        (result (result (list u8) (error $stream-error)))))
    (export "[method]input-stream.skip"
      (func (param "self" (borrow $input-stream)) (param "len" u64)
        (result (result u64 (error $stream-error)))))
    (export "[method]input-stream.blocking-skip"
      (func (param "self" (borrow $input-stream)) (param "len" u64)
        (result (result u64 (error $stream-error)))))
    (export "[method]output-stream.flush"
      (func (param "self" (borrow $output-stream)) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-write-zeroes-and-flush"
      (func (param "self" (borrow $output-stream)) (param "len" u64)
        (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-splice"
      (func (param "self" (borrow $output-stream)) (param "src" (borrow $input-stream))
        (param "len" u64) (result (result u64 (error $stream-error)))))))
  (alias export $streams "input-stream" (type $input-stream))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdin@0.2.0" (instance $stdin
    (alias outer 1 $input-stream (type $outer-input-stream))
    (export "input-stream" (type $input-stream (eq $outer-input-stream)))
    (export "get-stdin" (func (result (own $input-stream))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (alias outer 1 $output-stream (type $outer-output-stream))
    (export "output-stream" (type $output-stream (eq $outer-output-stream)))
    (export "get-stderr" (func (result (own $output-stream))))))
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-arguments" (func (result (list string))))))
  (import "wasi:cli/terminal-input@0.2.0" (instance $terminal-input
    (export "terminal-input" (type (sub resource)))))
  (alias export $terminal-input "terminal-input" (type $terminal-input))
  (import "wasi:cli/terminal-output@0.2.0" (instance $terminal-output
    (export "terminal-output" (type (sub resource)))))
  (alias export $terminal-output "terminal-output" (type $terminal-output))
  (import "wasi:cli/terminal-stdin@0.2.0" (instance $terminal-stdin
    (alias outer 1 $terminal-input (type $outer-terminal))
    (export "terminal-input" (type $terminal (eq $outer-terminal)))
    (export "get-terminal-stdin" (func (result (option (own $terminal)))))))
  (import "wasi:cli/terminal-stderr@0.2.0" (instance $terminal-stderr
    (alias outer 1 $terminal-output (type $outer-terminal))
    (export "terminal-output" (type $terminal (eq $outer-terminal)))
    (export "get-terminal-stderr" (func (result (option (own $terminal)))))))
  (import "wasi:sockets/network@0.2.0" (instance $network
    (type $error-codes (enum "unknown" "access-denied" "not-supported" "invalid-argument"
      "out-of-memory" "timeout" "concurrency-conflict" "not-in-progress" "would-block"
      "invalid-state" "new-socket-limit" "address-not-bindable" "address-in-use"
      "remote-unreachable" "connection-refused" "connection-reset" "connection-aborted"
      "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
      "permanent-resolver-failure"))
    (export "error-code" (type (eq $error-codes)))
    (type $families (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type (eq $families)))))
  (alias export $network "error-code" (type $error-code))
  (alias export $network "ip-address-family" (type $family))
  (import "wasi:sockets/tcp@0.2.0" (instance $tcp
    (alias outer 1 $error-code (type $outer-error-code))
    (export "error-code" (type $error-code (eq $outer-error-code)))
    (export "tcp-socket" (type $tcp-socket (sub resource)))
    (export "[method]tcp-socket.start-listen"
      (func (param "self" (borrow $tcp-socket)) (result (result (error $error-code)))))))
  (alias export $tcp "tcp-socket" (type $tcp-socket))
  (import "wasi:sockets/udp@0.2.0" (instance $udp
    (export "udp-socket" (type (sub resource)))))
  (alias export $udp "udp-socket" (type $udp-socket))
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $tcp-create
    (alias outer 1 $error-code (type $outer-error-code))
    (export "error-code" (type $error-code (eq $outer-error-code)))
    (alias outer 1 $family (type $outer-family))
    (export "ip-address-family" (type $family (eq $outer-family)))
    (alias outer 1 $tcp-socket (type $outer-socket))
    (export "tcp-socket" (type $socket (eq $outer-socket)))
    (export "create-tcp-socket" (func (param "address-family" $family)
      (result (result (own $socket) (error $error-code)))))))
  (import "wasi:sockets/udp-create-socket@0.2.0" (instance $udp-create
    (alias outer 1 $error-code (type $outer-error-code))
    (export "error-code" (type $error-code (eq $outer-error-code)))
    (alias outer 1 $family (type $outer-family))
    (export "ip-address-family" (type $family (eq $outer-family)))
    (alias outer 1 $udp-socket (type $outer-socket))
    (export "udp-socket" (type $socket (eq $outer-socket)))
    (export "create-udp-socket" (func (param "address-family" $family)
      (result (result (own $socket) (error $error-code)))))))

  ;; Memory, and an allocator that gives out each place once.
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $read (canon lower (func $streams "[method]input-stream.read")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $skip (canon lower (func $streams "[method]input-stream.skip")
    (memory (core memory $memory "memory"))))
  (core func $blocking-skip (canon lower (func $streams "[method]input-stream.blocking-skip")
    (memory (core memory $memory "memory"))))
  (core func $flush (canon lower (func $streams "[method]output-stream.flush")
    (memory (core memory $memory "memory"))))
  (core func $write-zeroes
    (canon lower (func $streams "[method]output-stream.blocking-write-zeroes-and-flush")
      (memory (core memory $memory "memory"))))
  (core func $splice (canon lower (func $streams "[method]output-stream.blocking-splice")
    (memory (core memory $memory "memory"))))
  (core func $get-stdin (canon lower (func $stdin "get-stdin")))
  (core func $get-stderr (canon lower (func $stderr "get-stderr")))
  (core func $get-arguments (canon lower (func $environment "get-arguments")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $terminal-stdin (canon lower (func $terminal-stdin "get-terminal-stdin")
    (memory (core memory $memory "memory"))))
  (core func $terminal-stderr (canon lower (func $terminal-stderr "get-terminal-stderr")
    (memory (core memory $memory "memory"))))
  (core func $create-tcp (canon lower (func $tcp-create "create-tcp-socket")
    (memory (core memory $memory "memory"))))
  (core func $create-udp (canon lower (func $udp-create "create-udp-socket")
    (memory (core memory $memory "memory"))))
  (core func $drop-input (canon resource.drop $input-stream))
  (core func $drop-output (canon resource.drop $output-stream))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "host" "read" (func $read (param i32 i64 i32)))
    (import "host" "skip" (func $skip (param i32 i64 i32)))
    (import "host" "blocking-skip" (func $blocking-skip (param i32 i64 i32)))
    (import "host" "flush" (func $flush (param i32 i32)))
    (import "host" "write-zeroes" (func $write-zeroes (param i32 i64 i32)))
    (import "host" "splice" (func $splice (param i32 i32 i64 i32)))
    (import "host" "get-stdin" (func $get-stdin (result i32)))
    (import "host" "get-stderr" (func $get-stderr (result i32)))
    (import "host" "get-arguments" (func $get-arguments (param i32)))
    (import "host" "terminal-stdin" (func $terminal-stdin (param i32)))
    (import "host" "terminal-stderr" (func $terminal-stderr (param i32)))
    (import "host" "create-tcp" (func $create-tcp (param i32 i32)))
    (import "host" "create-udp" (func $create-udp (param i32 i32)))
    (import "host" "drop-input" (func $drop-input (param i32)))
    (import "host" "drop-output" (func $drop-output (param i32)))

    ;; Every answer is put at 16. Whether it is an error, and which, stand in a byte each.
    (func $assert (param $condition i32)
      (if (i32.eqz (local.get $condition)) (then (unreachable))))
    (func $assert-well
      (call $assert (i32.eqz (i32.load8_u (i32.const 16)))))
    (func $assert-error (param $at i32) (param $code i32)
      (call $assert (i32.eq (i32.load8_u (i32.const 16)) (i32.const 1)))
      (call $assert (i32.eq (i32.load8_u (local.get $at)) (local.get $code)))
      (i64.store (i32.const 16) (i64.const -1)))
    (func (export "run") (result i32)
      (local $stdin i32) (local $stderr i32)
      ;; Standard input is at its end: the error 1, closed. It stands behind what a u64 would take.
      (local.set $stdin (call $get-stdin))
      (call $read (local.get $stdin) (i64.const 1) (i32.const 16))
      (call $assert-error (i32.const 20) (i32.const 1))
      (call $skip (local.get $stdin) (i64.const 1) (i32.const 16))
      (call $assert-error (i32.const 24) (i32.const 1))
      (call $blocking-skip (local.get $stdin) (i64.const 1) (i32.const 16))
      (call $assert-error (i32.const 24) (i32.const 1))
      (local.set $stderr (call $get-stderr))
      (call $splice (local.get $stderr) (local.get $stdin) (i64.const 1) (i32.const 16))
      (call $assert-error (i32.const 24) (i32.const 1))
      (call $drop-input (local.get $stdin))
      (call $write-zeroes (local.get $stderr) (i64.const 4096) (i32.const 16))
      (call $assert-well)
      (i64.store (i32.const 16) (i64.const -1))
      (call $flush (local.get $stderr) (i32.const 16))
      (call $assert-well)
      ;; No terminal, and no network: the error 1, access-denied.
      (i64.store (i32.const 16) (i64.const -1))
      (call $terminal-stdin (i32.const 16))
      (call $assert-well)
      (i64.store (i32.const 16) (i64.const -1))
      (call $terminal-stderr (i32.const 16))
      (call $assert-well)
      (call $create-tcp (i32.const 0) (i32.const 16))
      (call $assert-error (i32.const 20) (i32.const 1))
      (call $create-udp (i32.const 1) (i32.const 16))
      (call $assert-error (i32.const 20) (i32.const 1))
      ;; The first argument is the program's name.
      (call $get-arguments (i32.const 16))
      (if (i32.gt_u (i32.load (i32.const 20)) (i32.const 1))
        (then (call $write-zeroes (local.get $stderr) (i64.const 4097) (i32.const 16))))
      (call $drop-output (local.get $stderr))
      (i32.const 0)))

  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "read" (func $read))
      (export "skip" (func $skip))
      (export "blocking-skip" (func $blocking-skip))
      (export "flush" (func $flush))
      (export "write-zeroes" (func $write-zeroes))
      (export "splice" (func $splice))
      (export "get-stdin" (func $get-stdin))
      (export "get-stderr" (func $get-stderr))
      (export "get-arguments" (func $get-arguments))
      (export "terminal-stdin" (func $terminal-stdin))
      (export "terminal-stderr" (func $terminal-stderr))
      (export "create-tcp" (func $create-tcp))
      (export "create-udp" (func $create-udp))
      (export "drop-input" (func $drop-input))
      (export "drop-output" (func $drop-output))))))
  (func $run (result (result (error string)))
    (canon lift (core func $main "run") (memory (core memory $memory "memory"))))
  (instance $run-interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run-interface)))
