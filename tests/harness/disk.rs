//! A small disk for one test.

use std::path::PathBuf;
use std::process::Command;

/// A mounted disk, unmounted when dropped.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn mount(folder: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "none"]).arg(&folder).status();
        assert!(mounted.unwrap().success(), "this test mounts a small disk: run it as root");
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
