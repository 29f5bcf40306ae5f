//! Planted bugs, for the simulator to find: each stands where a mistake would be easy to make.
//!
//! Without the feature `mutants` none of it is compiled: [`mutant!`](crate::mutant) is then the constant `false`.

/// Whether the planted bug of that name is switched on.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// Whether the planted bug of that name is switched on.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::is_on($name)
    };
}

#[cfg(feature = "mutants")]
thread_local! {
    static ON: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Whether the planted bug of that name is switched on.
#[cfg(feature = "mutants")]
pub fn is_on(name: &str) -> bool {
    ON.get() == Some(name)
}

/// Switches one planted bug on for this thread, or all of them off.
#[cfg(feature = "mutants")]
pub fn switch_on(name: Option<&'static str>) {
    ON.set(name);
}
