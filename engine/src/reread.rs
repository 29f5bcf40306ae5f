//! Reads that are tried again: what a device cannot read for a moment, or misreads, is not damage, and must not cost what
//! it holds.

use std::io;
use std::path::Path;

use ringmq_env::{Env, File, IoSlice, OpenOptions};

/// How often a read is tried before what it would have read counts as lost.
const ATTEMPTS: u32 = 4;
/// Direct reads are of whole blocks of this many bytes.
const BLOCK: usize = 4096;

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

/// What `check` makes of the bytes at `offset`, a multiple of 4096, of the file at `path`. What fails it is asked of the
/// device once more, past the page cache, before it counts: the first answer may have been misread. What cannot be read
/// after all is an error of the kind `InvalidData`, as is what `check` refuses.
pub(crate) async fn read_checked<E: Env, T>(
    env: &E,
    path: &Path,
    file: &E::File,
    (offset, len): (u64, usize),
    check: impl Fn(&[u8]) -> io::Result<T>,
) -> io::Result<T> {
    assert!(offset.is_multiple_of(BLOCK as u64), "a direct read begins with a block");
    let read = read_again(file, offset, len).await.and_then(|bytes| check(&bytes));
    let Err(error) = read else { return read };
    tracing::warn!(path = %path.display(), offset, len, %error, "misread? it is read once more");
    let direct = env.open(path, OpenOptions { direct: true, ..OpenOptions::default() }).await?;
    let bytes = read_again(&direct, offset, len.next_multiple_of(BLOCK)).await;
    let bytes = bytes.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    check(&bytes[..len.min(bytes.len())])
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ringmq_env::sim::Sim;

    use super::*;

    #[test]
    fn what_was_misread_is_read_once_more_and_what_is_damaged_stays_so() {
        let sim = Sim::new(1);
        sim.run(async {
            let (env, path) = (sim.node("a"), Path::new("/file"));
            let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
            let file = env.open(path, options).await.unwrap();
            file.write_at(IoSlice::copy_of(&[7; 5000]), 0).await.unwrap();
            let looks = &Cell::new(0);
            let read = |right_at: u32| {
                looks.set(0);
                let check = move |bytes: &[u8]| {
                    assert_eq!(bytes, [7; 904]);
                    looks.set(looks.get() + 1);
                    if looks.get() == right_at { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
                };
                read_checked(&env, path, &file, (4096, 904), check)
            };
            assert_eq!((read(1).await.is_ok(), looks.get()), (true, 1));
            assert_eq!((read(2).await.is_ok(), looks.get()), (true, 2));
            assert_eq!((read(3).await.is_err(), looks.get()), (true, 2));
        });
    }
}
