//! Reads that are tried again: what a device cannot read for a moment is not damage, and must not cost what it holds.

use std::io;

use ringmq_env::{File, IoSlice};

/// How often a read is tried before what it would have read counts as lost.
const ATTEMPTS: u32 = 4;

/// As [`File::read_at`], for reads upon whose failure something is given up: an error that goes away was none.
pub(crate) async fn read_again<F: File>(file: &F, offset: u64, len: usize) -> io::Result<IoSlice> {
    let mut attempt = 1;
    loop {
        match file.read_at(offset, len).await {
            Err(error) if attempt < ATTEMPTS => {
                tracing::warn!(offset, len, attempt, %error, "a read failed and is tried again");
                attempt += 1;
            }
            result => return result,
        }
    }
}
