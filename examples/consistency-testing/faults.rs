//! The nemeses by name, as requests say them: which faults each makes to which nodes.

use std::time::Duration;

use jepsen_workloads::ORCHESTRATORS;
use potter_jepsen::Value;
use potter_jepsen::nemesis::Fault;

/// The node that stands for all clients.
pub(crate) const CLIENT: &str = "client";

/// What a nemesis needs from the system under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing but connections that go through the program.
    Network,
    /// Servers that the program started itself.
    Processes,
    /// The same, with clocks that can be wrong.
    Clocks,
    /// The same, with a disk for the primary's data that can be filled.
    Disk,
}

impl Needs {
    /// Whether servers that were started for `self` have what `other` needs.
    pub(crate) fn covers(self, other: Self) -> bool {
        self == other || matches!(other, Self::Network | Self::Processes)
    }
}

/// A nemesis as it is asked for.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) about: &'static str,
    pub(crate) needs: Needs,
}

pub(crate) const ALL: [Named; 13] = [
    Named { name: "none", aliases: &[], about: "No faults.", needs: Needs::Network },
    Named {
        name: "network_partition",
        aliases: &["partition", "partitions"],
        about: "Nodes and clients don't hear each other: halves, one alone, one way.",
        needs: Needs::Network,
    },
    Named {
        name: "process_killer",
        aliases: &["process_killed", "process_kill", "kill"],
        about: "Servers are killed (SIGKILL) and started again.",
        needs: Needs::Processes,
    },
    Named {
        name: "process_pause",
        aliases: &["process_paused", "process_freeze", "pause"],
        about: "Servers are stopped (SIGSTOP) and continued.",
        needs: Needs::Processes,
    },
    Named {
        name: "process_restart",
        aliases: &["process_restarted", "restart"],
        about: "Servers are killed and started again at once.",
        needs: Needs::Processes,
    },
    Named {
        name: "network_delay",
        aliases: &["delay", "latency", "slow_network"],
        about: "Bytes between clients and servers arrive later, by different times.",
        needs: Needs::Network,
    },
    Named {
        name: "network_loss",
        aliases: &["packet_loss", "loss"],
        about: "Bytes are lost and sent again: they stall as TCP does.",
        needs: Needs::Network,
    },
    Named {
        name: "connection_reset",
        aliases: &["disconnect", "reset"],
        about: "All connections are reset.",
        needs: Needs::Network,
    },
    Named {
        name: "lost_answers",
        aliases: &["eat_answer", "eaten_answers"],
        about: "COMMIT arrives, its answer does not: the outcome is unknown to the client.",
        needs: Needs::Network,
    },
    Named {
        name: "orchestrator_crash",
        aliases: &["crash_orchestrator", "orchestrator_killer"],
        about: "For the workload saga: the processes that run the sagas are killed (SIGKILL).",
        needs: Needs::Network,
    },
    Named {
        name: "clock_skew",
        aliases: &["clock", "clock_skewed"],
        about: "The servers' clocks jump by up to five minutes.",
        needs: Needs::Clocks,
    },
    Named {
        name: "disk_full",
        aliases: &["full_disk", "disk"],
        about: "The disk of the primary's data has no room: it refuses writes, or dies of it.",
        needs: Needs::Disk,
    },
    Named {
        name: "mixed",
        aliases: &["all", "chaos"],
        about: "Partitions, kills, pauses and resets in turn.",
        needs: Needs::Processes,
    },
];

/// The nemesis of this name, or what there is.
pub(crate) fn find(name: &str) -> Result<&'static Named, String> {
    let wanted = name.trim().to_ascii_lowercase().replace('-', "_");
    let found = ALL.iter().find(|it| it.name == wanted || it.aliases.contains(&wanted.as_str()));
    found.ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|it| it.name).collect();
        format!("there is no nemesis \"{name}\"; there are {}", names.join(", "))
    })
}

/// To whom faults can be done.
pub(crate) struct Victims {
    /// The nodes without the clients.
    pub(crate) servers: Vec<String>,
    /// The processes that run sagas.
    pub(crate) orchestrators: Vec<String>,
}

impl Victims {
    /// Those of a test of this workload.
    pub(crate) fn of(workload: &str, servers: Vec<String>) -> Self {
        let orchestrators = match workload {
            "saga" => ORCHESTRATORS.map(str::to_owned).into(),
            _ => Vec::new(),
        };
        Self { servers, orchestrators }
    }
}

/// The faults that a nemesis takes turns with.
pub(crate) fn of(name: &str, victims: &Victims) -> Vec<Fault> {
    let Victims { servers, orchestrators } = victims;
    let each = |kind: &str| {
        let all = servers.iter().chain(orchestrators);
        all.map(|name| Fault::new(kind).target(name)).collect::<Vec<_>>()
    };
    match name {
        "network_partition" => partitions(servers),
        "process_killer" => each("kill"),
        "process_pause" => each("pause"),
        "process_restart" => each("restart"),
        "network_delay" => {
            vec![Fault::new("delay").param("ms", Value::Int(50)).param("jitter_ms", Value::Int(50))]
        }
        "network_loss" => vec![Fault::new("loss").param("probability", Value::Int(10))],
        "connection_reset" => vec![Fault::new("disconnect")],
        "orchestrator_crash" => {
            orchestrators.iter().map(|name| Fault::new("kill").target(name)).collect()
        }
        "lost_answers" => servers
            .first()
            .map(|primary| Fault::new("eat-answer").target(format!("{CLIENT}->{primary}")))
            .into_iter()
            .collect(),
        "clock_skew" => [-300, -30, 30, 300]
            .map(|seconds| Fault::new("clock-skew").param("seconds", Value::Int(seconds)))
            .into(),
        "disk_full" => vec![Fault::new("disk-full")],
        "mixed" => {
            let mut all = partitions(servers);
            all.extend(each("kill"));
            all.extend(each("pause"));
            all.push(Fault::new("disconnect"));
            all
        }
        _ => Vec::new(),
    }
}

/// Partitions that cut at least one link: servers from each other, and clients from servers.
fn partitions(servers: &[String]) -> Vec<Fault> {
    let shape = |shape: &str, seed| {
        let fault = Fault::new("partition").param("shape", Value::from(shape));
        fault.param("seed", Value::Int(seed))
    };
    // Each node alone. Clients are one node, so one that is alone cuts them from all servers.
    let alone = |node: &String| shape("one", 0).target(node);
    let mut all: Vec<Fault> = servers.iter().map(alone).collect();
    all.extend((0..2).map(|seed| shape("one-way", seed)));
    if servers.len() > 1 {
        all.push(Fault::new("partition").targets(servers));
        all.extend((0..2).map(|seed| shape("halves", seed)));
    }
    all
}

/// How long it is quiet and how long a fault lasts, in a test of so long.
pub(crate) fn windows(test: Duration) -> (Duration, Duration) {
    let (least, most) = (Duration::from_millis(300), Duration::from_secs(5));
    let window = (test / 6).clamp(least, most);
    (window, window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_found_and_have_faults() {
        let servers = ["postgres-primary".to_owned(), "postgres-replica".to_owned()];
        for named in &ALL {
            for name in named.aliases.iter().chain([&named.name]) {
                assert_eq!(find(name).unwrap().name, named.name);
                assert_eq!(find(&name.replace('_', "-").to_uppercase()).unwrap().name, named.name);
            }
            let faults = of(named.name, &Victims::of("saga", servers.to_vec()));
            assert_eq!(faults.is_empty(), named.name == "none", "{}", named.name);
        }
        assert!(find("earthquake").unwrap_err().contains("network_partition"));
    }
}
