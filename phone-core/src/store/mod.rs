//! State stores: [`MemoryStore`] forgets everything when it is dropped; `RedbStore` (feature `redb`) is durable.

mod memory;
#[cfg(feature = "redb")]
mod durable;

#[cfg(feature = "redb")]
pub use durable::RedbStore;
pub use memory::MemoryStore;
