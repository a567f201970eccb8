//! What a database under test can do: all that the guarantees know of an engine.
//!
//! What always holds: a primary has one table of numbered rows, which nobody but the test writes to and which has no key, so that a row that
//! was applied twice is seen twice. It runs from [`Primary::begin`] on, and ends with its owner.

use std::path::Path;

use crate::service::Node;

/// The numbers of the rows in a table, in their order.
pub type Rows = Vec<u64>;

/// A database that farshore protects.
pub trait Primary: Send + Sized {
    /// A new one that runs, with an empty table. What it keeps beside the node's own files is in `folder`, or in a place of its own.
    fn begin(folder: &Path) -> Self;

    /// The lines of its `[databases.orders]` that say what it is and where.
    fn lines(&self) -> String;

    /// Commits one row with this number. The number of the transaction, where an application is told.
    fn commit(&mut self, row: u64) -> Option<u64>;

    /// The rows that it holds.
    fn rows(&mut self) -> Rows;

    /// Waits until the journal of the newest incarnation holds everything that was committed. A service runs.
    fn wait_stored(&mut self, node: &Node);

    /// Ends it as a crash does.
    fn crash(&mut self);

    /// Starts it again, behind [`Primary::crash`].
    fn start(&mut self);

    /// Copies its files into `folder`, as they are between two runs of it. No service runs.
    fn keep(&mut self, folder: &Path);

    /// Puts those in the place of its own, and runs again. No service runs.
    fn put_back(&mut self, folder: &Path);

    /// Restores to a target, which must succeed, and reads the copy.
    fn restored(node: &Node, target: &[&str]) -> Rows;

    /// Whether what a restore left in `directory` could be started or opened as a database.
    fn could_open(directory: &Path) -> bool;
}
