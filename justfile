# Shortcuts. Nothing here is needed to build Peat; `just --list` shows them all.

_default:
    @just --list --unsorted

# Everything that CI checks, or the named steps only: `just ci lint test`
ci *steps:
    .ci/run {{ steps }}

# All tests, the way the README says
test:
    cargo test --workspace

# Format, purity, layering and clippy
lint:
    .ci/run format purity layers lint

# Two processes, real aircraft positions, one state
demo *args:
    cargo run --release -- demo {{ args }}

# API documentation with warnings denied
doc *args:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps {{ args }}

# One simulated fleet; the same seed gives the same run for ever
sim seed="42" *args:
    cargo run --release -p peat-tests --bin sim -- --seed {{ seed }} --nodes 5 --docs 50 --steps 2000 --loss 0.3 --crash 0.01 --partition 0.02 {{ args }}

# The volume run: many seeds on all cores
sim-volume count="100000" *args:
    cargo run --release -p peat-tests --bin sim -- --nodes 3 --docs 10 --steps 200 --count {{ count }} {{ args }}

# 200 rounds of killing a serving node while it is written to; `PEAT_SEED` chooses the moments
crash-volume rounds="200":
    PEAT_CRASH_ROUNDS={{ rounds }} cargo test --release -p peat-cli --test process -- --nocapture crashes::

# Two nodes across lossy, late, slow and cut links, on every pair of transports; root, 25 minutes
links:
    cargo test --release -p peat-tests --test links -- --include-ignored --nocapture --test-threads 1

# What the transports carry per second and cost per megabyte; on a machine that does nothing else
throughput:
    cargo test --release -p peat-smol --lib -- --ignored --nocapture throughput
    cargo test --release -p peat-tests --test throughput -- --ignored --nocapture

# Fuzz one target (needs `cargo install cargo-fuzz`; stable Rust will do)
fuzz target seconds="60":
    cargo fuzz run --sanitizer none {{ target }} -- -max_total_time={{ seconds }} -timeout=20

# What syncing costs, beside what fielded peers and Automerge alone need: all tables, or one, as in `just bench equal`
bench *args:
    cargo run --release -p peat-tests --bin costs -- {{ args }}
