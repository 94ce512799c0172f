//! Kill, pause, restart: only what was registered, with all below it.

use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use potter_jepsen::ErrorKind;
use potter_jepsen::nemesis::{
    Fault, Nemesis, Probe, ProcessCommand, ProcessState, Processes, Ready,
};

use super::{journal, letter, wait_for};

/// A shell with a child of its own, as a server has.
fn server(directory: &std::path::Path) -> ProcessCommand {
    let script = "sleep 90 & echo $! > child; echo $$ >> starts; wait";
    ProcessCommand::new("sh").args(["-c", script]).directory(directory)
}

fn child_pid(directory: &std::path::Path) -> u32 {
    let read = || std::fs::read_to_string(directory.join("child")).ok()?.trim().parse().ok();
    let mut pid = None;
    wait_for("the child", || {
        pid = read();
        pid.is_some()
    });
    pid.unwrap()
}

struct Outside(Child);

impl Outside {
    fn start() -> Self {
        Self(Command::new("sleep").arg("90").spawn().unwrap())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn pause_and_heal_reach_all_below_the_process() {
    let (directory, journal) = journal();
    let processes = Processes::new(Arc::clone(&journal));
    assert_eq!(processes.probe().await, Probe::Available);
    processes.start("server", server(directory.path())).await.unwrap();
    let pid = processes.list().await[0].pid;
    let below = child_pid(directory.path());

    let injected = processes.inject(&Fault::new("pause").target("server")).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    assert_eq!((letter(pid), letter(below)), (Some('T'), Some('T')));
    assert_eq!(processes.state("server").await.unwrap(), ProcessState::Stopped);
    assert!(journal.in_effect().iter().any(|effect| effect.contains("was stopped")));

    for _ in 0..2 {
        let healed = processes.heal().await.unwrap();
        assert!(healed.verified, "{}", healed.detail);
        assert_eq!((letter(pid), letter(below)), (Some('S'), Some('S')));
    }
    assert!(!journal.in_effect().iter().any(|effect| effect.contains("was stopped")));
    processes.stop("server", Duration::from_secs(10)).await.unwrap();
    wait_for("the end of the server", || letter(pid).is_none());
    assert!(processes.names().is_empty() && journal.in_effect().is_empty());
}

#[tokio::test]
async fn what_was_killed_is_gone_and_runs_again_after_the_heal() {
    let (directory, journal) = journal();
    let processes = Processes::new(journal);
    processes.start("server", server(directory.path())).await.unwrap();
    let pid = processes.list().await[0].pid;
    let below = child_pid(directory.path());
    // One that is stopped can be killed too.
    processes.inject(&Fault::new("pause")).await.unwrap();

    let injected = processes.inject(&Fault::new("kill")).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    assert_eq!((letter(pid), letter(below)), (None, None));
    let again = processes.inject(&Fault::new("kill")).await.unwrap();
    assert!(!again.verified, "what is dead can't be killed: {}", again.detail);

    assert!(processes.heal().await.unwrap().verified);
    let second = processes.list().await[0].pid;
    assert_eq!(processes.state("server").await.unwrap(), ProcessState::Running);
    assert!(processes.heal().await.unwrap().verified);
    assert_eq!(processes.list().await[0].pid, second, "healing twice starts nothing");

    let restarted = processes.inject(&Fault::new("restart")).await.unwrap();
    assert!(restarted.verified, "{}", restarted.detail);
    assert_ne!(processes.list().await[0].pid, second);
}

#[tokio::test]
async fn only_registered_processes_can_be_touched() {
    let (_directory, journal) = journal();
    let processes = Processes::new(journal);
    let outside = Outside::start();
    // A name is nobody's but the registry's.
    for name in ["sleep", "postgres", "1"] {
        let error = processes.inject(&Fault::new("kill").target(name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidFault);
        assert!(error.to_string().contains("there are none"), "{error}");
    }
    processes.adopt("mine", outside.0.id()).unwrap();
    assert_eq!(
        processes.adopt("mine", outside.0.id()).unwrap_err().kind(),
        ErrorKind::InvalidFault
    );
    let half = Fault::new("kill").target("mine").target("other");
    assert!(processes.inject(&half).await.is_err());
    assert_eq!(letter(outside.0.id()), Some('S'), "a fault that is half wrong does nothing");

    assert!(processes.pause("mine").await.unwrap().verified);
    assert_eq!(letter(outside.0.id()), Some('T'));
    assert!(processes.heal().await.unwrap().verified);
    assert_eq!(letter(outside.0.id()), Some('S'));
    assert!(processes.kill("mine").await.unwrap().verified);
    assert_eq!(letter(outside.0.id()), None);
    // How it was started is not known.
    assert!(!processes.heal().await.unwrap().verified);
}

#[tokio::test]
async fn a_process_is_ready_before_it_counts_as_started() {
    let (directory, journal) = journal();
    let processes = Processes::new(journal);
    let file = directory.path().join("ready");
    // It fails once, as a server does whose port is still taken.
    let script =
        "if [ ! -e tried ]; then touch tried; echo not yet; exit 1; fi; touch ready; sleep 90";
    let command = ProcessCommand::new("sh").args(["-c", script]).directory(directory.path());
    let ready = Ready::Command(vec!["test".into(), "-e".into(), file.clone().into()]);
    processes.start("server", command.ready(ready)).await.unwrap();
    assert!(file.exists());

    let never = ProcessCommand::new("sh").args(["-c", "echo no licence; exit 1"]);
    let log = directory.path().join("log");
    let never = never.output(&log).within(Duration::from_millis(300));
    let never = never.ready(Ready::Command(vec!["false".into()]));
    let error = processes.start("never", never).await.unwrap_err();
    assert!(error.to_string().contains("no licence"), "{error}");
    assert_eq!(processes.names(), ["server"]);
}

#[tokio::test]
async fn a_fault_that_makes_no_sense_is_an_error() {
    let (directory, journal) = journal();
    let processes = Processes::new(journal);
    processes.start("server", server(directory.path())).await.unwrap();
    let unknown = processes.inject(&Fault::new("explode")).await.unwrap_err();
    assert!(unknown.to_string().contains("kill, pause, restart"), "{unknown}");
    let param = Fault::new("kill").param("signal", super::text("HUP"));
    assert_eq!(processes.inject(&param).await.unwrap_err().kind(), ErrorKind::InvalidFault);
    assert_eq!(processes.state("server").await.unwrap(), ProcessState::Running);
}
