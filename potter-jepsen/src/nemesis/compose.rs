//! Several nemeses as one.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Fault, Healed, Injected, Nemesis, Probe, no_such_fault};
use crate::error::{Error, ErrorKind, Result};

/// Gives each fault to the one nemesis that makes faults of its kind.
pub struct Composed {
    parts: Vec<Arc<dyn Nemesis>>,
}

/// Makes one nemesis of several.
///
/// # Errors
/// [`ErrorKind::InvalidFault`] when two of them make faults of the same kind: which of them is meant
/// would be a guess.
pub fn compose(parts: impl IntoIterator<Item = Arc<dyn Nemesis>>) -> Result<Composed> {
    let parts: Vec<_> = parts.into_iter().collect();
    let mut seen: Vec<(String, String)> = Vec::new();
    for part in &parts {
        for kind in part.faults() {
            if let Some((_, other)) = seen.iter().find(|(known, _)| *known == kind) {
                let message = format!("'{other}' and '{}' both make '{kind}'", part.name());
                return Err(Error::new(ErrorKind::InvalidFault, message));
            }
            seen.push((kind, part.name().to_owned()));
        }
    }
    Ok(Composed { parts })
}

#[async_trait]
impl Nemesis for Composed {
    fn name(&self) -> &str {
        "composed"
    }

    fn faults(&self) -> Vec<String> {
        self.parts.iter().flat_map(|part| part.faults()).collect()
    }

    async fn probe(&self) -> Probe {
        let mut missing = Vec::new();
        for part in &self.parts {
            if let Probe::Unavailable(reason) = part.probe().await {
                missing.push(format!("{}: {reason}", part.name()));
            }
        }
        if missing.is_empty() { Probe::Available } else { Probe::Unavailable(missing.join("; ")) }
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        match self.parts.iter().find(|part| part.faults().contains(&fault.kind)) {
            Some(part) => part.inject(fault).await,
            None => Err(no_such_fault(self, fault)),
        }
    }

    /// From the last to the first. One that fails does not keep the others from it.
    async fn heal(&self) -> Result<Healed> {
        let (mut verified, mut details, mut failed) = (true, Vec::new(), Vec::new());
        for part in self.parts.iter().rev() {
            match part.heal().await {
                Ok(healed) => {
                    verified &= healed.verified;
                    if !healed.detail.is_empty() {
                        details.push(healed.detail);
                    }
                }
                Err(error) => failed.push(format!("{}: {error}", part.name())),
            }
        }
        if failed.is_empty() {
            Ok(Healed { verified, detail: details.join("; ") })
        } else {
            Err(Error::new(ErrorKind::Fault, failed.join("; ")))
        }
    }
}

impl std::fmt::Debug for Composed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.name())).finish()
    }
}
