//! The faults of a network of proxies: made, seen, undone and seen again.

use async_trait::async_trait;

use super::probe::Probe as Connection;
use super::rules::{Trap, TrapAction};
use super::{Arc, Blocked, Duration, Flow, Link, Ordering, ProxyNetwork, Rules, Seen};
use super::{partition, probe};
use crate::error::{Error, ErrorKind, Result};
use crate::nemesis::params::Params;
use crate::nemesis::{Fault, Healed, Injected, Nemesis, Probe, no_params, no_such_fault};

const FAULTS: [&str; 8] = [
    "partition",
    "delay",
    "loss",
    "bandwidth",
    "disconnect",
    "refuse",
    "eat-answer",
    "drop-request",
];

#[async_trait]
impl Nemesis for ProxyNetwork {
    fn name(&self) -> &str {
        "proxies"
    }

    fn faults(&self) -> Vec<String> {
        FAULTS.map(str::to_owned).into()
    }

    async fn probe(&self) -> Probe {
        match super::listen().await {
            Ok(_) => Probe::Available,
            Err(error) => Probe::Unavailable(error.to_string()),
        }
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        match fault.kind.as_str() {
            "partition" => self.partition(fault).await,
            "delay" | "loss" | "bandwidth" => self.shape(fault).await,
            "disconnect" | "refuse" => self.break_connections(fault).await,
            "eat-answer" | "drop-request" => self.set_traps(fault),
            _ => Err(no_such_fault(self, fault)),
        }
    }

    async fn heal(&self) -> Result<Healed> {
        let mut waiting = 0;
        let links: Vec<_> = {
            let state = self.lock();
            state.flows.values().for_each(|flow| flow.change(|rules| *rules = Rules::default()));
            state.links.values().cloned().collect()
        };
        for link in &links {
            waiting += link.traps.disarm();
            link.refuse.store(false, Ordering::SeqCst);
        }
        for link in &links {
            let seen = probe::once(link, 8, Duration::ZERO).await;
            if !matches!(seen, Seen::Echo(_)) {
                let detail = format!("from {} to {}: {seen:?} after the heal", link.from, link.to);
                return Ok(Healed::unverified(detail));
            }
        }
        self.cross_out()?;
        if waiting > 0 {
            let detail = format!("{waiting} faults waited for a request that did not come");
            return Ok(Healed::unverified(detail));
        }
        Ok(Healed::verified(format!("bytes pass on all {} links", links.len())))
    }
}

impl ProxyNetwork {
    async fn partition(&self, fault: &Fault) -> Result<Injected> {
        let wanted = partition::blocked(fault, &self.nodes())?;
        let is_flow = |pair: &&(String, String)| self.lock().flows.contains_key(*pair);
        // Nodes without a link between them never hear each other.
        let blocked: Blocked = wanted.iter().filter(is_flow).cloned().collect();
        if blocked.is_empty() {
            let message = "the partition blocks no link: none leads from one side to the other";
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        self.block(&blocked)?;
        let shown: Vec<_> = blocked.iter().map(|(from, to)| format!("{from}->{to}")).collect();
        for (from, to) in &blocked {
            let Some((link, forward)) = self.link_of(from, to) else { continue };
            let seen = probe::once(&link, 8, Duration::ZERO).await;
            let held = matches!(seen, Seen::Held(held) if if forward { held.forward } else { held.backward });
            if !held {
                let detail = format!("{from}->{to} should be blocked, but a probe saw {seen:?}");
                return Ok(Injected::unverified(detail));
            }
        }
        Ok(Injected::verified(format!("bytes were seen held on {}", shown.join(", "))))
    }

    async fn shape(&self, fault: &Fault) -> Result<Injected> {
        let params = Params(fault);
        let change: Box<dyn Fn(&mut Rules) + Send> = match fault.kind.as_str() {
            "delay" => {
                no_params(fault, &["ms", "jitter_ms"])?;
                let delay = Duration::from_millis(params.number("ms", 100, 0..=600_000)?);
                let jitter = Duration::from_millis(params.number("jitter_ms", 0, 0..=600_000)?);
                Box::new(move |rules| (rules.delay, rules.jitter) = (delay, jitter))
            }
            "loss" => {
                no_params(fault, &["probability"])?;
                let percent = params.number("probability", 10, 1..=99)?;
                let loss = f64::from(u32::try_from(percent).unwrap_or(99)) / 100.0;
                Box::new(move |rules| rules.loss = loss)
            }
            _ => {
                no_params(fault, &["bytes_per_second"])?;
                let rate = params.number("bytes_per_second", 65_536, 1_024..=1 << 40)?;
                Box::new(move |rules| rules.bytes_per_second = Some(rate))
            }
        };
        let flows = self.flows(fault)?;
        self.write_down("proxies in this process are slow")?;
        flows.iter().for_each(|(_, flow)| flow.change(&change));
        for ((from, to), _) in &flows {
            let Some((link, _)) = self.link_of(from, to) else { continue };
            if link.forward.rules().blocked || link.backward.rules().blocked {
                let detail = format!("{from}->{to} is blocked: nothing else can be seen there");
                return Ok(Injected::unverified(detail));
            }
            if let Err(seen) = effect(&link, &fault.kind).await {
                return Ok(Injected::unverified(format!("{from}->{to}: {seen}")));
            }
        }
        let shown: Vec<_> = flows.iter().map(|((from, to), _)| format!("{from}->{to}")).collect();
        Ok(Injected::verified(format!("{} was seen on {}", fault.kind, shown.join(", "))))
    }

    async fn break_connections(&self, fault: &Fault) -> Result<Injected> {
        no_params(fault, &[])?;
        let links = self.links_of(fault)?;
        let refuse = fault.kind == "refuse";
        if refuse {
            self.write_down("proxies in this process refuse connections")?;
        }
        let mut broken = 0;
        for link in &links {
            let probe = Connection::open(link).await;
            let mut probe = probe.map_err(|error| {
                let message = format!("no connection from {} to {}", link.from, link.to);
                Error::new(ErrorKind::Fault, message).with_source(error)
            })?;
            // Through the proxy and back, so that the connection is one.
            let before = probe.send(8, Duration::ZERO).await;
            link.refuse.store(refuse || link.refuse.load(Ordering::SeqCst), Ordering::SeqCst);
            broken += link.disconnect();
            let seen = matches!(before, Seen::Echo(_) | Seen::Held(_)) && probe.breaks().await;
            let refused = !refuse || probe::once(link, 8, Duration::ZERO).await == Seen::Broken;
            if !seen || !refused {
                let detail = format!("from {} to {}: a connection lives on", link.from, link.to);
                return Ok(Injected::unverified(detail));
            }
        }
        Ok(Injected::verified(format!("{broken} connections on {} links were reset", links.len())))
    }

    fn set_traps(&self, fault: &Fault) -> Result<Injected> {
        no_params(fault, &["when", "times"])?;
        let params = Params(fault);
        let when = params.text("when", "COMMIT")?;
        let left = params.number("times", 1, 1..=1_000_000)?;
        if when.is_empty() {
            let message = "'when' is empty: say which text the request has";
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        let eat = fault.kind == "eat-answer";
        let action = if eat { TrapAction::EatAnswer } else { TrapAction::DropRequest };
        let links = self.links_of(fault)?;
        self.write_down("proxies in this process lose requests or answers")?;
        for link in &links {
            link.traps.arm(Trap { when: when.clone().into_bytes(), action, left });
        }
        let detail =
            format!("waits for '{when}' on {} links; the heal says if it came", links.len());
        Ok(Injected::verified(detail))
    }

    /// The flows that a fault's targets mean, each with its pair of nodes.
    #[allow(clippy::type_complexity)]
    fn flows(&self, fault: &Fault) -> Result<Vec<((String, String), Arc<Flow>)>> {
        self.check_targets(fault)?;
        let state = self.lock();
        let meant = state.flows.iter().filter(|((from, to), _)| meant(fault, from, to));
        Ok(meant.map(|(pair, flow)| (pair.clone(), Arc::clone(flow))).collect())
    }

    fn links_of(&self, fault: &Fault) -> Result<Vec<Arc<Link>>> {
        self.check_targets(fault)?;
        let state = self.lock();
        let meant = state.links.iter().filter(|((from, to), _)| meant(fault, from, to));
        let links: Vec<_> = meant.map(|(_, link)| Arc::clone(link)).collect();
        if links.is_empty() {
            let message = format!("'{fault}' means no link: connections are made the other way");
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        Ok(links)
    }

    fn check_targets(&self, fault: &Fault) -> Result<()> {
        let nodes = self.nodes();
        if nodes.is_empty() {
            let message = "there is no link yet: a proxy can only do something to its own links";
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        for target in &fault.targets {
            match target.split_once("->") {
                None => partition::known(target, &nodes)?,
                Some((from, to)) => _ = self.rules(from, to)?,
            }
        }
        Ok(())
    }
}

fn meant(fault: &Fault, from: &str, to: &str) -> bool {
    let one = |target: &String| match target.split_once("->") {
        None => target == from || target == to,
        Some((a, b)) => a == from && b == to,
    };
    fault.targets.is_empty() || fault.targets.iter().any(one)
}

/// Whether a probe sees the rules of a link's two flows in effect. Only lower bounds are looked at:
/// a slow machine makes everything slower.
async fn effect(link: &Link, kind: &str) -> Result<(), String> {
    let (forward, backward) = (link.forward.rules(), link.backward.rules());
    match kind {
        "delay" => {
            let least = forward.delay + backward.delay;
            let most = least + forward.jitter + backward.jitter;
            match probe::once(link, 8, most).await {
                Seen::Echo(took) if took >= least => Ok(()),
                seen => Err(format!("a probe should have taken {least:?}, and saw {seen:?}")),
            }
        }
        "loss" => {
            let loss = forward.loss.max(backward.loss);
            let seen = probe::until_stalled(link, loss).await;
            if seen { Ok(()) } else { Err("no chunk was lost".to_owned()) }
        }
        _ => {
            let slowest = [forward.bytes_per_second, backward.bytes_per_second];
            let slowest = slowest.into_iter().flatten().min().unwrap_or(u64::MAX);
            // A fifth of a second's worth, and at least one chunk.
            let bytes = usize::try_from((slowest / 5).clamp(1_024, 1 << 20)).unwrap_or(1 << 20);
            let least = link.forward.transmission(bytes).max(link.backward.transmission(bytes));
            match probe::once(link, bytes, least * 4).await {
                Seen::Echo(took) if took >= least => Ok(()),
                seen => Err(format!("{bytes} bytes should have taken {least:?}, and saw {seen:?}")),
            }
        }
    }
}
