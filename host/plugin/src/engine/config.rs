//! How wasmtime is configured: what costs a call nothing, and what bounds the room for instances.
//!
//! A worker process must compile with what the relay loads with. Next: `limits`, the bounds of one instance.

use std::num::NonZeroUsize;

use wasmtime::component::Component;
use wasmtime::{Cache, Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::limits::Meter;

/// Memories that the instances of all plugins may hold at once; nearly every instance has one.
pub(super) const MEMORIES: u32 = 256;
const TABLES_PER_MEMORY: u32 = 8;

/// Returns how many slots an instance of a component takes.
pub(crate) fn slots(component: &Component) -> u32 {
    let Some(needs) = component.resources_required() else {
        return Meter::MEMORIES;
    };
    needs.num_memories.max(needs.num_tables.div_ceil(TABLES_PER_MEMORY)).clamp(1, Meter::MEMORIES)
}

pub(super) fn config(cache: Option<Cache>) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Guest calls are synchronous; support for asynchronous ones triples the cost of an empty call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(20))
        // A worker process reads it, if it is needed.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .cache(cache);
    config
}

/// Preallocates slots for instances. This reserves addresses only; a few slots stay resident for the
/// next instance.
pub(super) fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MEMORIES)
        .total_core_instances(MEMORIES * 256)
        .total_memories(MEMORIES)
        .total_tables(MEMORIES * TABLES_PER_MEMORY)
        .total_stacks(MEMORIES)
        .max_core_instances_per_component(256)
        .max_memories_per_component(Meter::MEMORIES)
        .max_tables_per_component(Meter::TABLES)
        .max_tables_per_module(Meter::TABLES)
        .max_memories_per_module(Meter::MEMORIES)
        .table_elements(100_000)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_memory_size(4 << 30)
        .max_unused_warm_slots(8)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        // Without the kernel's help, keeping pages resident is slower than not keeping them.
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

/// Configures an engine for a small address space: no pool, and few more addresses per memory than it
/// uses. Every access is checked, which costs about a seventh.
pub(super) fn frugal(config: &mut Config) -> &mut Config {
    config.memory_reservation(1 << 20).memory_reservation_for_growth(16 << 20).memory_guard_size(64 << 10)
}
