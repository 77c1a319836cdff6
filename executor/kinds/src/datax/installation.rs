//! Where DataX is installed on this machine, and the argv that starts it.
//!
//! Java is started directly: DataX's own starter puts its command together as text for a shell. Where a site needs that
//! starter nevertheless, everything that would reach the shell must be made of plain characters.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use millrace_common::kind::datax::LogLevel;
use serde::{Deserialize, Serialize};

use super::DataxError;

/// Arguments of the Java machine that DataX's own starter gives; what is configured stands behind and therefore wins.
const JVM: [&str; 3] = ["-Xms1g", "-Xmx1g", "-XX:+HeapDumpOnOutOfMemoryError"];
/// Java before 18 knows the first, later ones the others; without them the closing block is question marks under `LANG=C`.
const ENCODING: [&str; 5] = [
    "-Dfile.encoding=UTF-8",
    "-Dsun.stdout.encoding=UTF-8",
    "-Dsun.stderr.encoding=UTF-8",
    "-Dstdout.encoding=UTF-8",
    "-Dstderr.encoding=UTF-8",
];
/// Characters of a job file's path that name DataX's own log file.
const LOG_NAME_CHARS: usize = 20;

/// DataX on this machine, `[datax]` of the executor's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Installation {
    /// The folder that DataX is unpacked in, with `bin`, `conf`, `lib` and `plugin`. Without it, only native plugins run.
    pub home: Option<PathBuf>,
    /// How it is started.
    pub start: Start,
    /// Arguments of the Java machine, after DataX's own (`-Xms1g -Xmx1g`) and before those of a task.
    pub jvm: Vec<String>,
    /// Environment of DataX beside `PATH`, `HOME` and `LANG`, such as `HADOOP_USER_NAME`.
    pub env: BTreeMap<String, String>,
    /// The folder that relative paths of job files start from.
    pub jobs_dir: Option<PathBuf>,
}

/// How DataX is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// By this Java program, 8 or later.
    Java(PathBuf),
    /// By `bin/datax.py` and this Python; versions of DataX before the end of 2021 need Python 2.
    Python(PathBuf),
}

impl Default for Start {
    fn default() -> Self {
        Self::Java(PathBuf::from("java"))
    }
}

/// What one run of an external DataX is about.
#[derive(Debug)]
pub(super) struct Invocation<'a> {
    /// The job file, an absolute path.
    pub(super) job: &'a Path,
    /// Values for `$name` in its text.
    pub(super) params: &'a BTreeMap<String, String>,
    /// Arguments of the Java machine, those of the task.
    pub(super) jvm: &'a [String],
    /// How much it writes.
    pub(super) log_level: LogLevel,
}

impl Installation {
    /// Returns the argv that runs a job file with the DataX in `home`.
    ///
    /// # Errors
    /// Where a text would reach a shell and has a meaning there.
    pub(super) fn argv(&self, home: &Path, invocation: &Invocation<'_>) -> Result<Vec<OsString>, DataxError> {
        match &self.start {
            Start::Java(java) => Ok(self.java_argv(java, home, invocation)),
            Start::Python(python) => self.python_argv(python, home, invocation),
        }
    }

    fn java_argv(&self, java: &Path, home: &Path, invocation: &Invocation<'_>) -> Vec<OsString> {
        let mut argv = vec![java.as_os_str().to_owned(), "-server".into()];
        argv.extend(JVM.map(OsString::from));
        argv.push(joined("-XX:HeapDumpPath=", &home.join("log")));
        argv.extend(self.jvm.iter().chain(invocation.jvm).map(OsString::from));
        argv.extend(ENCODING.map(OsString::from));
        argv.push("-Dlogback.statusListenerClass=ch.qos.logback.core.status.NopStatusListener".into());
        argv.push("-Djava.security.egd=file:///dev/urandom".into());
        argv.push(format!("-Dloglevel={}", invocation.log_level.as_str()).into());
        argv.push(joined("-Ddatax.home=", home));
        argv.push(joined("-Dlogback.configurationFile=", &home.join("conf/logback.xml")));
        argv.push("-classpath".into());
        argv.push(home.join("lib/*").into_os_string());
        argv.push(format!("-Dlog.file.name={}", log_name(invocation.job)).into());
        argv.extend(definitions(invocation.params).map(OsString::from));
        argv.extend(
            ["com.alibaba.datax.core.Engine", "-mode", "standalone", "-jobid", "-1", "-job"]
                .map(OsString::from),
        );
        argv.push(invocation.job.as_os_str().to_owned());
        argv
    }

    fn python_argv(
        &self,
        python: &Path,
        home: &Path,
        invocation: &Invocation<'_>,
    ) -> Result<Vec<OsString>, DataxError> {
        let jvm: Vec<&str> = self.jvm.iter().chain(invocation.jvm).map(String::as_str).collect();
        let params: Vec<String> = definitions(invocation.params).collect();
        plain("the path of DataX", &home.to_string_lossy())?;
        plain("the path of the job file", &invocation.job.to_string_lossy())?;
        jvm.iter().try_for_each(|argument| plain("`jvm`", argument))?;
        params.iter().try_for_each(|definition| plain("`params`", definition))?;
        let mut argv = vec![python.as_os_str().to_owned(), home.join("bin/datax.py").into_os_string()];
        if !jvm.is_empty() {
            argv.push(format!("--jvm={}", jvm.join(" ")).into());
        }
        if !params.is_empty() {
            argv.push(format!("--params={}", params.join(" ")).into());
        }
        argv.push(format!("--loglevel={}", invocation.log_level.as_str()).into());
        argv.push(invocation.job.as_os_str().to_owned());
        Ok(argv)
    }
}

fn definitions(params: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    params.iter().map(|(name, value)| format!("-D{name}={value}"))
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

/// The name of DataX's own log file, as its starter makes it.
fn log_name(job: &Path) -> String {
    let text = job.to_string_lossy();
    let skipped = text.chars().count().saturating_sub(LOG_NAME_CHARS);
    text.chars().skip(skipped).map(|letter| if matches!(letter, '/' | '.') { '_' } else { letter }).collect()
}

/// Refuses what a shell could read as anything but one word. A list of what is allowed cannot forget a special case.
fn plain(what: &'static str, text: &str) -> Result<(), DataxError> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "_-./:,=+@%".contains(letter);
    match text.chars().find(|letter| !is_plain(*letter)) {
        None => Ok(()),
        Some(letter) => Err(DataxError::ShellText { what, letter }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("day".to_owned(), value.to_owned())])
    }

    fn argv(
        start: Start,
        params: &BTreeMap<String, String>,
        jvm: &[String],
    ) -> Result<Vec<String>, DataxError> {
        let installation = Installation { start, jvm: vec!["-Xmx4g".into()], ..Installation::default() };
        let job = Path::new("/etc/jobs/MES-table/mes_wpc_wo.json");
        let invocation = Invocation { job, params, jvm, log_level: LogLevel::Debug };
        let argv = installation.argv(Path::new("/opt/datax"), &invocation)?;
        Ok(argv.into_iter().map(|argument| argument.into_string().expect("text")).collect())
    }

    #[test]
    fn java_gets_each_parameter_as_one_argument() {
        let argv = argv(Start::default(), &params("a b; $(id)"), &["-Xmx8g".into()]).expect("an argv");
        let at = |text: &str| {
            argv.iter().position(|argument| argument == text).unwrap_or_else(|| panic!("no {text}: {argv:?}"))
        };
        assert_eq!(argv[0], "java");
        assert!(at("-Xmx1g") < at("-Xmx4g") && at("-Xmx4g") < at("-Xmx8g"));
        assert!(at("-Dday=a b; $(id)") < at("com.alibaba.datax.core.Engine"));
        assert_eq!(argv[at("-classpath") + 1], "/opt/datax/lib/*");
        at("-Ddatax.home=/opt/datax");
        at("-Dloglevel=debug");
        at("-Dlog.file.name=able_mes_wpc_wo_json");
        assert_eq!(argv.last().map(String::as_str), Some("/etc/jobs/MES-table/mes_wpc_wo.json"));
    }

    #[test]
    fn the_starter_gets_plain_text() {
        let argv =
            argv(Start::Python("python2".into()), &params("20181121"), &["-Xmx8g".into()]).expect("an argv");
        assert_eq!(
            argv,
            [
                "python2",
                "/opt/datax/bin/datax.py",
                "--jvm=-Xmx4g -Xmx8g",
                "--params=-Dday=20181121",
                "--loglevel=debug",
                "/etc/jobs/MES-table/mes_wpc_wo.json"
            ]
        );
    }

    #[test]
    fn text_with_a_meaning_to_a_shell_never_reaches_the_starter() {
        for value in [
            "a b", "a;b", "$(id)", "`id`", "a|b", "a&b", "a>b", "'", "\"", "\\", "a\nb", "*", "~", "#",
            "{a,b}",
        ] {
            let error = argv(Start::Python("python2".into()), &params(value), &[]).expect_err(value);
            assert!(matches!(error, DataxError::ShellText { what: "`params`", .. }), "{error}");
        }
        let error =
            argv(Start::Python("python2".into()), &params("x"), &["-Dx=$(id)".into()]).expect_err("jvm");
        assert!(error.to_string().contains("`jvm`"), "{error}");
    }

    #[test]
    fn the_configuration_reads_both_ways_to_start() {
        let read = |text: &str| toml::from_str::<Installation>(text);
        assert_eq!(read("").expect("defaults").start, Start::Java("java".into()));
        let java =
            read("home = '/opt/datax'\nstart = { java = '/usr/bin/java' }\nenv = { A = '1' }").expect("java");
        assert_eq!((java.start, java.env["A"].as_str()), (Start::Java("/usr/bin/java".into()), "1"));
        let python = read("home = '/opt/datax'\nstart.python = '/usr/bin/python2'").expect("python");
        assert_eq!(python.start, Start::Python("/usr/bin/python2".into()));
        assert!(read("start = { java = 'a', python = 'b' }").is_err());
        assert!(read("hom = '/opt'").expect_err("unknown").to_string().contains("hom"));
    }
}
