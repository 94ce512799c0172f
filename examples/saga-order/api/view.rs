//! Sagas as they are shown.

use chrono::{DateTime, Utc};
use potter_saga::{
    EntryKind, LogEntry, LogRecord, SagaRecord, SagaStatus, StepHistory, StepStatus,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::order::{Item, PlacedOrder};
use crate::steps::{Payment, Reservation, Shipment};
use examples_common::Money;

/// A saga in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SagaSummary {
    saga_id: Uuid,
    order_id: String,
    #[schema(example = "order_saga")]
    definition_name: String,
    #[schema(value_type = String, example = "completed")]
    status: SagaStatus,
    total_steps: usize,
    last_error: Option<String>,
    correlation_id: Option<String>,
    started_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
}

impl SagaSummary {
    pub(super) fn of(record: &SagaRecord) -> Self {
        Self {
            saga_id: record.id,
            order_id: record.key.clone(),
            definition_name: record.name.clone(),
            status: record.status,
            total_steps: record.steps_total,
            last_error: record.error.clone(),
            correlation_id: record.metadata.correlation_id.clone(),
            started_at: record.created_at,
            completed_at: record.finished_at,
        }
    }
}

/// A saga.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SagaView {
    saga_id: Uuid,
    order_id: Uuid,
    #[schema(example = "order_saga")]
    definition_name: String,
    #[schema(value_type = String, example = "completed")]
    status: SagaStatus,
    /// The step that runs, is undone or waits for its next attempt; none once it is finished.
    #[schema(example = "process_payment")]
    current_step: Option<&'static str>,
    total_steps: usize,
    /// Those that are done and were not undone.
    completed_steps: usize,
    context: ContextView,
    last_error: Option<String>,
    correlation_id: Option<String>,
    started_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
    steps: Vec<StepView>,
}

/// What the saga works with: the order, and what its steps have given so far.
#[derive(Debug, Serialize, ToSchema)]
struct ContextView {
    order_id: Uuid,
    customer_id: String,
    items: Vec<Item>,
    #[schema(value_type = f64, example = 59.98)]
    total_amount: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipment_id: Option<Uuid>,
}

/// Where a step is.
#[derive(Debug, Serialize, ToSchema)]
struct StepView {
    #[schema(example = "reserve_inventory")]
    name: &'static str,
    #[schema(value_type = String, example = "completed")]
    status: StepStatus,
}

/// One attempt at a step.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryEntry {
    #[schema(example = "reserve_inventory")]
    step_name: String,
    #[schema(value_type = String, example = "completed")]
    status: StepStatus,
    started_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
    #[schema(example = "12.3ms")]
    duration: Option<String>,
    duration_ms: Option<i64>,
    error: Option<String>,
    /// 0 for the first attempt.
    retry_attempt: u32,
}

impl From<StepHistory> for HistoryEntry {
    fn from(attempt: StepHistory) -> Self {
        Self {
            step_name: attempt.step_name,
            status: attempt.status,
            started_at: attempt.started_at,
            completed_at: attempt.completed_at,
            duration: attempt.duration,
            duration_ms: attempt.duration_ms,
            error: attempt.error,
            retry_attempt: attempt.retry_attempt,
        }
    }
}

impl SagaView {
    /// The saga with this record and log.
    pub(super) fn of(
        record: &SagaRecord,
        log: &[LogRecord],
        names: &[&'static str],
    ) -> potter_core::Result<Self> {
        let order: PlacedOrder = record.input.get()?;
        let statuses = step_statuses(record, log, names.len());
        let is_done = |status: &&StepStatus| **status == StepStatus::Completed;
        let completed_steps = statuses.iter().filter(is_done).count();
        let rests = record.status.is_final();
        let steps = names.iter().zip(statuses);
        Ok(Self {
            saga_id: record.id,
            order_id: order.order_id,
            definition_name: record.name.clone(),
            status: record.status,
            current_step: names.get(record.step).copied().filter(|_| !rests),
            total_steps: record.steps_total,
            completed_steps,
            context: ContextView::of(order, log, names)?,
            last_error: record.error.clone(),
            correlation_id: record.metadata.correlation_id.clone(),
            started_at: record.created_at,
            completed_at: record.finished_at,
            steps: steps.map(|(name, status)| StepView { name, status }).collect(),
        })
    }
}

impl ContextView {
    fn of(
        order: PlacedOrder,
        log: &[LogRecord],
        names: &[&'static str],
    ) -> potter_core::Result<Self> {
        let output = |index: usize| {
            log.iter().find_map(|row| {
                let step = row.entry.step_name.as_deref();
                row.entry.output.as_ref().filter(|_| step == names.get(index).copied())
            })
        };
        let reservation = output(0).map(potter_core::Json::get::<Reservation>).transpose()?;
        let payment = output(1).map(potter_core::Json::get::<Payment>).transpose()?;
        let shipment = output(2).map(potter_core::Json::get::<Shipment>).transpose()?;
        Ok(Self {
            order_id: order.order_id,
            customer_id: order.customer_id,
            items: order.items,
            total_amount: order.total_amount,
            reservation_id: reservation.map(|one| one.reservation_id),
            payment_id: payment.map(|one| one.payment_id),
            shipment_id: shipment.map(|one| one.shipment_id),
        })
    }
}

/// Where each step is, from what was logged about it.
fn step_statuses(record: &SagaRecord, log: &[LogRecord], steps: usize) -> Vec<StepStatus> {
    let mut statuses = vec![StepStatus::Pending; steps];
    for LogRecord { entry, .. } in log {
        let LogEntry { kind, step, .. } = entry;
        let Some(status) = statuses.get_mut(*step) else { continue };
        *status = match kind {
            EntryKind::Completed => StepStatus::Completed,
            EntryKind::Undone => StepStatus::Compensated,
            EntryKind::UndoRetry => StepStatus::Compensating,
            EntryKind::Retry | EntryKind::Unknown => StepStatus::Running,
            EntryKind::Rejected => StepStatus::Failed,
            // Where the saga turns back, the step that was tried did not succeed.
            EntryKind::Compensating | EntryKind::Cancelling | EntryKind::Parked
                if *status == StepStatus::Running =>
            {
                StepStatus::Failed
            }
            _ => *status,
        };
    }
    if let Some(status) = statuses.get_mut(record.step) {
        *status = match (record.status, *status) {
            (SagaStatus::Running, StepStatus::Pending | StepStatus::Failed) => StepStatus::Running,
            (SagaStatus::Compensating, StepStatus::Completed) => StepStatus::Compensating,
            (_, status) => status,
        };
    }
    if record.compensating || record.status.is_final() {
        for status in statuses.iter_mut().filter(|status| **status == StepStatus::Pending) {
            *status = StepStatus::Skipped;
        }
    }
    statuses
}
