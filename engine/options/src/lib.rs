//! Options declared once: parser, help, environment and documentation come from one table.
