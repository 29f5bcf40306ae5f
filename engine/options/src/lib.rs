//! Options declared once: parser, help, environment and documentation come from one table.
//!
//! [`OPTIONS`] is the table. [`Settings`] holds the values in force for one program, [`cli`] makes its command line
//! and [`docs`] the page `docs/configuration.md`. Java's property names work wherever RingMQ's do; keys that only
//! Java has are known too ([`java_only`]).

pub mod cli;
pub mod docs;
pub mod file;
pub mod java_only;
mod option;
mod settings;
mod table;
mod value;

pub use option::{Choice, Kind, OptionDef, Role, Roles, TimeUnit};
pub use settings::{SettingError, Settings, Source, options_of};
pub use table::{MIN_MEMORY, OPTIONS};
pub use value::{Value, show_duration, show_size};
