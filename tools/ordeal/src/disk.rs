//! Small file systems in a mount namespace of their own, gone with the process that holds it.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::ioctl::{self, Setter, opcode};

/// Bytes of a MiB.
pub const MIB: usize = 1 << 20;

/// EXT4_IOC_SHUTDOWN, and its argument that drops what the journal has not got yet, as a device that goes away does.
const EXT4_SHUTDOWN: ioctl::Opcode = opcode::read::<u32>(b'X', 125);
const WITHOUT_JOURNAL: u32 = 2;

/// Longest until nothing of an ended process holds its file system any more.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(60);

/// A file system that one process holds.
pub struct SmallDisk {
    holder: Child,
    dir: PathBuf,
    is_user: bool,
}

impl SmallDisk {
    /// A tmpfs of `mib` MiB at `dir`.
    pub fn tmpfs(dir: &Path, mib: usize) -> anyhow::Result<SmallDisk> {
        // Without root's rights the namespace needs a user namespace around it.
        let is_user = !Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status()?.success();
        SmallDisk::mount(dir, is_user, &format!("mount -t tmpfs -o size={mib}m tmpfs \"$0\""))
    }

    /// The ext4 file system in the file `image` at `dir`, through a loop device; root alone may do that.
    pub fn ext4(dir: &Path, image: &Path) -> anyhow::Result<SmallDisk> {
        SmallDisk::mount(dir, false, &format!("mount -o loop '{}' \"$0\"", image.display()))
    }

    /// Makes an ext4 file system of `mib` MiB in the file `image`.
    pub fn make_ext4(image: &Path, mib: usize) -> anyhow::Result<()> {
        File::create(image)?.set_len((mib * MIB) as u64)?;
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image).status();
        ensure!(made.context("starting mkfs.ext4")?.success(), "mkfs.ext4 failed");
        Ok(())
    }

    fn mount(dir: &Path, is_user: bool, mount: &str) -> anyhow::Result<SmallDisk> {
        let script = format!("{mount} && echo mounted && exec sleep 3600");
        let mut holder = Command::new("unshare")
            .args([if is_user { "-Urm" } else { "-m" }, "sh", "-c", &script])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let mut line = String::new();
        if let Some(out) = holder.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let disk = SmallDisk { holder, dir: dir.to_owned(), is_user };
        ensure!(line == "mounted\n", "this machine lets nobody mount that in a namespace");
        Ok(disk)
    }

    /// What runs a program on it.
    pub fn prefix(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        let user: &[&str] = if self.is_user { &["-U", "--preserve-credentials"] } else { &[] };
        let enter = ["nsenter", "-m", "-t", &target];
        enter.iter().chain(user).map(|part| (*part).to_owned()).collect()
    }

    /// Takes space, `bytes` or all there is; given back by [`SmallDisk::free`].
    pub fn take(&self, bytes: usize) -> anyhow::Result<usize> {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        let mut taken = 0;
        while taken < bytes {
            let part = (bytes - taken).min(MIB);
            match file.write(&vec![1; part]) {
                Ok(0) => break,
                Ok(n) => taken += n,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(taken)
    }

    /// Gives back what was taken.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    /// Lets every later write and flush on an ext4 file system fail with EIO.
    pub fn break_ext4(&self) -> anyhow::Result<()> {
        let root = File::open(self.path())?;
        // SAFETY: the request takes a pointer to 32 bits, which is what the setter passes.
        unsafe { ioctl::ioctl(&root, Setter::<EXT4_SHUTDOWN, u32>::new(WITHOUT_JOURNAL)) }
            .context("shutting the file system down")
    }

    /// Unmounts it, which nobody may use any more. Without this the kernel does it some time after the holder's end, and
    /// who mounts the image again meanwhile gets the same file system once more, broken as it is.
    pub fn unmount(self) -> anyhow::Result<()> {
        let target = self.holder.id().to_string();
        let begun = Instant::now();
        loop {
            let mut command = Command::new("nsenter");
            command.args(["-m", "-t", &target, "umount"]).arg(&self.dir).stderr(Stdio::null());
            if command.status().context("starting nsenter")?.success() {
                return Ok(());
            }
            // The kernel closes the files of a process's io_uring some time after its end.
            ensure!(begun.elapsed() < UNMOUNT_LIMIT, "{} is still in use", self.dir.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where this process finds it.
    fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.dir.strip_prefix("/").unwrap_or(&self.dir))
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
