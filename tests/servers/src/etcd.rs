//! An etcd: members at their places, on ports that stay theirs.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    certificates::Certificates,
    home::Home,
    place::Place,
    port::Port,
    process::{Account, Process, command, wait_until},
    programs,
};

/// How etcd is run.
#[derive(Debug)]
pub struct Settings {
    /// The folder of `etcd` and `etcdctl`.
    pub programs: PathBuf,
    /// How often its leader is heard of; short, so that elections inside it take no time.
    pub heartbeat_interval: Duration,
    /// How long without it until its members elect another.
    pub election_timeout: Duration,
    /// What it shows and asks for; plain where absent.
    pub certificates: Option<Certificates>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            programs: "/usr/bin".into(),
            heartbeat_interval: Duration::from_millis(20),
            election_timeout: Duration::from_millis(200),
            certificates: None,
        }
    }
}

/// An etcd of one or more members.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    settings: Settings,
    /// Names the cluster, so that a later one on the same ports is another one.
    lives: u32,
}

#[derive(Debug)]
struct Member {
    place: Place,
    process: Option<Process>,
    home: Home,
    client: Port,
    peer: Port,
}

/// Returns what keeps an etcd from being started here.
#[must_use]
pub fn missing() -> Option<String> {
    let folder = Settings::default().programs;
    programs::missing(&[folder.join("etcd"), folder.join("etcdctl")])
}

impl Etcd {
    /// Starts members on this machine, and waits until they answer.
    #[must_use]
    pub fn start(count: usize) -> Self {
        Self::start_with(count, Settings::default())
    }

    /// Starts members on this machine with settings of their own, and waits until they answer.
    #[must_use]
    pub fn start_with(count: usize, settings: Settings) -> Self {
        let mut etcd = Self::prepare(&vec![Place::here(); count], settings);
        etcd.resume_all();
        etcd
    }

    /// Chooses ports for a member at each place, and starts nothing.
    #[must_use]
    pub fn prepare(places: &[Place], settings: Settings) -> Self {
        let members = places.iter().map(|place| Member {
            place: place.clone(),
            process: None,
            home: Home::new(place),
            client: Port::take(),
            peer: Port::take(),
        });
        Self { members: members.collect(), settings, lives: 1 }
    }

    /// Returns the number of members.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.members.len()
    }

    /// Returns the addresses for clients, of all members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| self.client_url(member)).collect()
    }

    fn client_url(&self, member: &Member) -> String {
        let scheme = if self.settings.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", member.place.socket(&member.client))
    }

    /// Returns where a file of its certificates is.
    ///
    /// # Panics
    /// Where it has none.
    #[must_use]
    pub fn certificate(&self, name: &str) -> String {
        self.settings.certificates.as_ref().expect("an etcd with certificates").path(name)
    }

    /// Returns the process of a member.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn member(&self, index: usize) -> &Process {
        self.members[index].process.as_ref().expect("a member that runs")
    }

    /// Kills a member, with no chance to tidy up.
    pub fn kill(&mut self, index: usize) {
        self.members[index].process = None;
    }

    /// Starts a member with what it kept, where it does not run, and does not wait.
    pub fn resume(&mut self, index: usize) {
        if self.members[index].process.is_none() {
            let started = self.begin(index);
            self.members[index].process = Some(started);
        }
    }

    /// Starts all members that do not run, and waits until etcd answers.
    pub fn resume_all(&mut self) {
        (0..self.members.len()).for_each(|index| self.resume(index));
        self.wait();
    }

    /// Ends all members and begins anew with nothing, on the same ports.
    pub fn wipe(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
        self.lives += 1;
        self.resume_all();
    }

    fn begin(&self, index: usize) -> Process {
        let url = |member: &Member| format!("http://{}", member.place.socket(&member.peer));
        let others = self.members.iter().enumerate();
        let cluster: Vec<String> = others.map(|(at, one)| format!("e{at}={}", url(one))).collect();
        let member = &self.members[index];
        let (client, peer) = (self.client_url(member), url(member));
        let settings = &self.settings;
        let mut etcd = command(&member.place, Account::Own, &settings.programs.join("etcd"));
        etcd.current_dir(member.home.path())
            .args(["--name", &format!("e{index}"), "--data-dir"])
            .arg(member.home.file(&format!("life-{}", self.lives)))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(",")])
            .arg(format!("--initial-cluster-token=life-{}", self.lives))
            .arg(format!("--heartbeat-interval={}", settings.heartbeat_interval.as_millis()))
            .arg(format!("--election-timeout={}", settings.election_timeout.as_millis()))
            .arg("--log-level=error")
            .args(self.certificate_flags(["trusted-ca-file", "cert-file", "key-file"]))
            .args(settings.certificates.is_some().then_some("--client-cert-auth"));
        Process::start(etcd, &member.home.file("log"))
    }

    /// Returns flags of etcd or its command line that name files of certificates.
    fn certificate_flags(&self, flags: [&str; 3]) -> Vec<String> {
        let made = self.settings.certificates.iter();
        let files = ["ca.pem", "own.pem", "own.key"];
        made.flat_map(|made| {
            flags.iter().zip(files).map(|(flag, file)| format!("--{flag}={}", made.path(file)))
        })
        .collect()
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait(&self) {
        wait_until("etcd to answer", || self.try_ctl(&["get", "nothing"]).is_some());
    }

    /// Runs etcd's own command line, which must succeed, and returns what it printed.
    ///
    /// # Panics
    /// Where it fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments).unwrap_or_else(|| panic!("etcdctl {arguments:?} failed"))
    }

    /// Runs etcd's own command line at the place of the first member, for whichever member answers.
    #[must_use]
    pub fn try_ctl(&self, arguments: &[&str]) -> Option<String> {
        self.run_ctl(0, &self.endpoints().join(","), arguments)
    }

    /// Asks one member, from its own place.
    #[must_use]
    pub fn try_ctl_of(&self, index: usize, arguments: &[&str]) -> Option<String> {
        self.run_ctl(index, &self.client_url(&self.members[index]), arguments)
    }

    fn run_ctl(&self, index: usize, endpoints: &str, arguments: &[&str]) -> Option<String> {
        let mut ctl: Command = self.members[index].place.command(self.settings.programs.join("etcdctl"));
        ctl.env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoints}"))
            .args(["--command-timeout=3s", "--dial-timeout=1s"])
            .args(self.certificate_flags(["cacert", "cert", "key"]))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let output = ctl.output().expect("etcdctl is installed");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("etcdctl prints text"))
    }

    /// Returns the lease that keeps a key, as etcd's command line takes it.
    ///
    /// # Panics
    /// Where there is no such key.
    #[must_use]
    pub fn lease_of(&self, key: &str) -> String {
        let shown = self.ctl(&["get", key, "-w", "json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON of etcdctl");
        format!("{:x}", shown["kvs"][0]["lease"].as_i64().expect("a key with a lease"))
    }

    /// Returns what a member wrote.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.members[index].home.file("log")).unwrap_or_default()
    }
}
