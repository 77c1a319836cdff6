//! An authority of a test's own, and what it signed for a server and for who calls it.

use std::{net::IpAddr, process::Command, process::Stdio};

use tempfile::TempDir;

/// `ca.pem`, and below it `own.pem` with `own.key`, good for servers and callers.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes new ones for a server at `address` and on this machine; `None` where that is not possible here.
    #[must_use]
    pub fn make(address: IpAddr) -> Option<Self> {
        let made = Self { folder: tempfile::tempdir().ok()? };
        let new =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
        made.openssl(&new, &["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"])?;
        let names = format!("subjectAltName=IP:{address},DNS:localhost");
        let signed = ["-subj", "/CN=server", "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", &names];
        let usage = ["-addext", "extendedKeyUsage=serverAuth,clientAuth"];
        let no_authority = ["-addext", "basicConstraints=critical,CA:FALSE"];
        let files = ["-keyout", "own.key", "-out", "own.pem"];
        made.openssl(&new, &[&signed[..], &usage, &no_authority, &files].concat())?;
        Some(made)
    }

    fn openssl(&self, one: &[&str], other: &[&str]) -> Option<()> {
        let mut command = Command::new("openssl");
        command.args(one).args(other).current_dir(self.folder.path()).stderr(Stdio::null());
        command.status().ok().filter(std::process::ExitStatus::success).map(drop)
    }

    /// Returns where a file of it is.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}
