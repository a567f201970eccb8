//! Steps at which tests end the process: what a crash there leaves behind is what they look at.
//!
//! Nothing of this is in a build without the feature `failpoints` of the crate `fail`, which only tests switch on. The
//! variable `FAILPOINTS` names the step: `ship-appended=3*off->return` ends the process when it is reached the fourth time.

use std::sync::Once;

#[doc(hidden)]
pub use fail;

/// Ends the process here when the environment says so: as by a kill, no destructor runs.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::crash::fail::fail_point!($name, |_| std::process::abort())
    };
}
pub(crate) use crash_point;

/// Reads the environment, once.
pub fn prepare() {
    static READ: Once = Once::new();
    if fail::has_failpoints() {
        // The scenario would end with its guard, but it is the process that it is for.
        READ.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    }
}
