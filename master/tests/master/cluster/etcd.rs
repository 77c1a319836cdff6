//! An etcd of a test's own: members on free ports, in a temporary folder, ended by their own process ids.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// Looks until etcd answers: 60 s altogether.
const LOOKS_MAX: u32 = 1_200;
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Etcd {
    folder: TempDir,
    members: Vec<Server>,
    /// Names the cluster, so that a later one on the same ports is another one.
    lives: u32,
    certificates: Option<Certificates>,
}

/// An authority, and what it signed for etcd and for who calls it.
pub(super) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes new ones; `None` where that is not possible here.
    pub(super) fn make() -> Option<Self> {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        let new =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
        let usage = "extendedKeyUsage=serverAuth,clientAuth";
        made.openssl(&new, &["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"])?;
        let signed =
            ["-subj", "/CN=etcd", "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", names, "-addext", usage];
        made.openssl(
            &new,
            &[
                &signed[..],
                &["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "own.key", "-out", "own.pem"],
            ]
            .concat(),
        )?;
        Some(made)
    }

    fn openssl(&self, one: &[&str], other: &[&str]) -> Option<()> {
        let mut command = Command::new("openssl");
        command.args(one).args(other).current_dir(self.folder.path()).stderr(Stdio::null());
        command.status().ok().filter(std::process::ExitStatus::success).map(drop)
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

struct Server {
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

pub(super) fn missing() -> Option<String> {
    let absent = ["/usr/bin/etcd", "/usr/bin/etcdctl"]
        .into_iter()
        .find(|program| !std::path::Path::new(program).exists());
    absent.map(|program| format!("{program} is not installed"))
}

impl Etcd {
    pub(super) fn start(count: usize) -> Self {
        let mut etcd = Self::prepare(count);
        etcd.resume_all();
        etcd
    }

    /// Chooses ports and starts nothing.
    pub(super) fn prepare(count: usize) -> Self {
        // All held at once, so that none is given twice.
        let listeners: Vec<TcpListener> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let members =
            ports.chunks(2).map(|pair| Server { client_port: pair[0], peer_port: pair[1], child: None });
        let folder = tempfile::tempdir().unwrap();
        Self { folder, members: members.collect(), lives: 1, certificates: None }
    }

    /// One member that shows a certificate and asks for one.
    pub(super) fn start_encrypted(certificates: Certificates) -> Self {
        let mut etcd = Self::prepare(1);
        etcd.certificates = Some(certificates);
        etcd.resume_all();
        etcd
    }

    pub(super) fn certificate(&self, name: &str) -> String {
        self.certificates.as_ref().unwrap().path(name)
    }

    fn client_url(&self, member: &Server) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", member.client_port)
    }

    /// Returns flags of etcd or its command line that name files of certificates.
    fn certificate_flags(&self, flags: [&str; 3]) -> Vec<String> {
        let files = ["ca.pem", "own.pem", "own.key"];
        let made = self.certificates.iter();
        made.flat_map(|made| {
            flags.iter().zip(files).map(|(flag, file)| format!("--{flag}={}", made.path(file)))
        })
        .collect()
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| self.client_url(member)).collect()
    }

    pub(super) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn resume_all(&mut self) {
        for index in 0..self.members.len() {
            if self.members[index].child.is_none() {
                self.resume(index);
            }
        }
        self.wait();
    }

    /// Ends all members and begins anew with nothing, on the same ports.
    pub(super) fn wipe(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
        self.lives += 1;
        self.resume_all();
    }

    fn resume(&mut self, index: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> = (0..)
            .zip(&self.members)
            .map(|(at, one): (usize, _)| format!("e{at}={}", url(one.peer_port)))
            .collect();
        let member = &self.members[index];
        let (client, peer) = (self.client_url(member), url(member.peer_port));
        let asks = self.certificates.is_some().then_some("--client-cert-auth");
        let data = self.folder.path().join(format!("{}-{index}", self.lives));
        let token = format!("life-{}", self.lives);
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "/usr/bin/etcd",
                "--name",
                &format!("e{index}"),
                "--data-dir",
            ])
            .arg(data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", &token])
            .args(["--heartbeat-interval=20", "--election-timeout=200", "--log-level=error"])
            .args(self.certificate_flags(["trusted-ca-file", "cert-file", "key-file"]))
            .args(asks)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.members[index].child = Some(child);
    }

    fn wait(&self) {
        for _ in 0..LOOKS_MAX {
            if self.try_ctl(&["get", "nothing"]).is_some() {
                return;
            }
            std::thread::sleep(LOOK);
        }
        panic!("etcd does not answer");
    }

    /// Runs etcd's own command line and returns what it printed.
    pub(super) fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments).unwrap_or_else(|| panic!("etcdctl {arguments:?} failed"))
    }

    fn try_ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("/usr/bin/etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints().join(",")))
            .args(["--command-timeout=3s", "--dial-timeout=1s"])
            .args(self.certificate_flags(["cacert", "cert", "key"]))
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Returns the lease that keeps the leader's key, as etcd's command line takes it.
    pub(super) fn lease_of_leader(&self) -> String {
        let shown = self.ctl(&["get", "/millrace/leader", "-w", "json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        format!("{:x}", shown["kvs"][0]["lease"].as_i64().unwrap())
    }
}
