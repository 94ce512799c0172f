//! What happens to the workers.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::worker;
use crate::writers::Random;

const WORKERS: usize = 8;

pub(crate) struct Workers {
    url: String,
    random: Random,
    alive: Vec<Worker>,
    pub(crate) killed: u32,
    pub(crate) stopped: u32,
    pub(crate) told: u32,
    pub(crate) started: u32,
}

struct Worker {
    process: Child,
    /// It stands still until then.
    stands_until: Option<Instant>,
}

impl Workers {
    pub(crate) fn new(url: &str, seed: u64) -> Self {
        let random = Random::new(seed);
        let mut workers = Self {
            url: url.to_owned(),
            random,
            alive: Vec::new(),
            killed: 0,
            stopped: 0,
            told: 0,
            started: 0,
        };
        for _ in 0..WORKERS {
            workers.start();
        }
        workers
    }

    fn start(&mut self) {
        let program = std::env::current_exe().unwrap();
        let process = Command::new(program)
            .env(worker::URL, &self.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.alive.push(Worker { process, stands_until: None });
        self.started += 1;
    }

    /// Waits a little, and does something to one of them.
    pub(crate) async fn something_happens(&mut self) {
        tokio::time::sleep(Duration::from_millis(100 + self.random.below(500))).await;
        for worker in &mut self.alive {
            if worker.stands_until.is_some_and(|until| until <= Instant::now()) {
                worker.signal("CONT");
                worker.stands_until = None;
            }
        }
        let one = usize::try_from(self.random.below(WORKERS as u64)).unwrap();
        match self.random.below(4) {
            0 => {
                let mut worker = self.alive.swap_remove(one);
                worker.process.kill().unwrap();
                worker.process.wait().unwrap();
                self.killed += 1;
                self.start();
            }
            1 | 2 => {
                let lease = u64::try_from(worker::LEASE.as_millis()).unwrap();
                let pause = lease + self.random.below(lease * 2);
                let worker = &mut self.alive[one];
                worker.signal("STOP");
                worker.stands_until = Some(Instant::now() + Duration::from_millis(pause));
                self.stopped += 1;
            }
            _ => {
                let mut worker = self.alive.swap_remove(one);
                worker.signal("TERM");
                worker.signal("CONT");
                let status = worker.process.wait().unwrap();
                assert!(status.success(), "a worker that was told to stop ended with {status}");
                self.told += 1;
                self.start();
            }
        }
    }

    /// Wakes all that stand still.
    pub(crate) fn all_may_work(&mut self) {
        for worker in &mut self.alive {
            assert!(worker.process.try_wait().unwrap().is_none(), "a worker ended by itself");
            worker.signal("CONT");
            worker.stands_until = None;
        }
    }
}

impl Worker {
    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(sent.success(), "kill -s {name} {id}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
