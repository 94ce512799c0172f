//! How a process of a test is started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Writes who it is into what it got as standard input, then becomes the program. The process that
/// was started and its pid are the same before and after `exec`.
const TELL_AND_BECOME: &str = r#"cat /proc/$$/stat >&0 && exec "$@" </dev/null"#;

/// A program with all that is needed to start it, and to start it again.
#[derive(Clone)]
#[non_exhaustive]
pub struct ProcessCommand {
    program: OsString,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    user: Option<(u32, u32)>,
    output: Option<PathBuf>,
    prefix: Vec<OsString>,
    ready: Ready,
    within: Duration,
    stop: Stop,
}

/// Without the values of its environment: they may be secret.
impl fmt::Debug for ProcessCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ProcessCommand");
        out.field("program", &self.program).field("arguments", &self.arguments);
        out.field("environment", &self.environment.keys().collect::<Vec<_>>());
        out.finish_non_exhaustive()
    }
}

/// When a process that was started counts as running.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Ready {
    /// As soon as it is started.
    #[default]
    Started,
    /// When something accepts connections there.
    Accepts(SocketAddr),
    /// When this command ends with status 0. It is run until it does.
    Command(Vec<OsString>),
}

/// The signal that asks the process to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// SIGTERM.
    #[default]
    Terminate,
    /// SIGINT: what PostgreSQL calls a fast shutdown.
    Interrupt,
}

impl ProcessCommand {
    /// A program without arguments.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
            user: None,
            output: None,
            prefix: Vec::new(),
            ready: Ready::Started,
            within: Duration::from_secs(60),
            stop: Stop::Terminate,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment, beside those of this process.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The directory that it runs in.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The user and group that it runs as; only root can choose. PostgreSQL, for one, refuses root.
    #[must_use]
    pub fn user(mut self, user: u32, group: u32) -> Self {
        self.user = Some((user, group));
        self
    }

    /// The file that gets what it prints, at its end. Without it, it is thrown away.
    #[must_use]
    pub fn output(mut self, path: impl Into<PathBuf>) -> Self {
        self.output = Some(path.into());
        self
    }

    /// When it counts as running.
    #[must_use]
    pub fn ready(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }

    /// How long it may take until it is ready: 60 s if not said. A start that ends before that is
    /// tried again, because what the last run left may still be in the way (a port, a lock).
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// The signal that asks it to end.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// The program runs through these words: `ip netns exec NAME`.
    pub(crate) fn prefix(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(Into::into).collect();
        self
    }

    pub(super) fn ready_when(&self) -> &Ready {
        &self.ready
    }

    pub(super) fn ready_within(&self) -> Duration {
        self.within
    }

    pub(super) fn stop_signal(&self) -> Stop {
        self.stop
    }

    /// Starts it; `told` is the file that gets its `/proc/PID/stat` before the program begins.
    pub(super) fn spawn(&self, told: &Path) -> Result<Child> {
        let failed = |error: std::io::Error| {
            let message = format!("'{}' can't be started", self.program.to_string_lossy());
            Error::new(ErrorKind::Fault, message).with_source(error)
        };
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(TELL_AND_BECOME).arg("sh").args(&self.prefix);
        if let (Some((user, group)), false) = (self.user, self.prefix.is_empty()) {
            // What enters a namespace has to be root; who it becomes after that is another matter.
            command.arg("setpriv").arg("--clear-groups");
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
        }
        command.arg(&self.program).args(&self.arguments).envs(&self.environment);
        command.stdin(File::create(told).map_err(failed)?);
        match &self.output {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.map_err(failed)?;
                command.stderr(file.try_clone().map_err(failed)?).stdout(file);
            }
            None => _ = command.stdout(Stdio::null()).stderr(Stdio::null()),
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt as _;
            // Ctrl-C in a terminal goes to the runner, which then ends its processes in order.
            command.process_group(0);
            if let (Some((user, group)), true) = (self.user, self.prefix.is_empty()) {
                command.uid(user).gid(group);
            }
        }
        command.spawn().map_err(failed)
    }

    /// The end of what it printed, for errors.
    pub(super) fn last_words(&self) -> String {
        let text = self.output.as_ref().and_then(|path| std::fs::read(path).ok());
        let text = text.unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2_000)..]).into_owned();
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}
