//! State stores: [`MemoryStore`] forgets everything when it is dropped; `RedbStore` (feature `redb`) is durable.

#[cfg(feature = "redb")]
mod durable;
mod memory;

#[cfg(feature = "redb")]
pub use durable::RedbStore;
pub use memory::MemoryStore;
