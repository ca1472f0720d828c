//! Fleet, service floor: agents report and are given orders (`contracts.md` 5.6); operators look at the one and give the
//! other.
//!
//! Promises: only the holder of a stream's lease reports and is given its orders; an order that has not ended comes
//! again with every stream of commands; what is given and withdrawn is audited.
//! Never: knows a transport; acts on a table itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::counter;
use protocol::{
    Code, Error, Result,
    ids::{Epoch, OrderId, TenantId},
    limits,
    names::ErpName,
    proto::fleet::{
        Command, CommandsRequest, ProgressRequest, ProgressResponse, ReportRequest, ReportResponse,
    },
};
use runtime::clock::{self, Mono, Wall};

use super::Caller;
use crate::{
    model::{
        catalog::{At, Page, Place},
        fleet::{self, AgentView, TableQuery, TableView},
        order::{self, Order, OrderEvent, OrderQuery, OrderState, OrderView, OrderWish},
        stream::StreamId,
    },
    store::{Store, fleet::Report},
};

/// How often the store is asked for new orders: people give them, also by the command line beside this process.
const LOOK: Duration = Duration::from_secs(1);
/// When a tenant with too many streams of commands should try one more.
const STREAM_WAIT: Duration = Duration::from_secs(10);

/// Agents and orders. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet {
    store: Store,
    board: Arc<Board>,
}

/// What all streams of commands of this process share.
#[derive(Debug, Default)]
struct Board {
    /// When it was looked last, and the number of the newest order then: one look serves every stream.
    looked: tokio::sync::Mutex<Option<(Mono, i64)>>,
    streams: Mutex<HashMap<TenantId, usize>>,
}

/// A place among the tenant's streams of commands; dropping it gives it back.
#[derive(Debug)]
struct Seat {
    board: Arc<Board>,
    tenant: TenantId,
}

/// The orders of one agent, one after another.
#[derive(Debug)]
pub struct Commands {
    fleet: Fleet,
    stream: StreamId,
    epoch: Epoch,
    /// The last order that was taken from the store.
    after: i64,
    taken: VecDeque<Order>,
    end: Mono,
    _seat: Seat,
}

/// An order that was given, or would be.
#[derive(Debug)]
pub struct Ordered {
    /// False for a dry run.
    pub applied: bool,
    pub order: OrderView,
}

impl Fleet {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, board: Arc::default() }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who), ..self.clone() }
    }

    /// Takes an agent's report of its tables.
    ///
    /// # Errors
    /// `FENCED` where the epoch is older or lapsed, `INVALID_ARGUMENT` above a limit.
    pub async fn report(
        &self,
        caller: &Caller,
        request: ReportRequest,
        now: Wall,
    ) -> Result<ReportResponse> {
        let stream = stream(caller, &request.erp)?;
        let report = Report {
            epoch: Epoch(request.epoch),
            version: fleet::bounded("version", request.version)?,
            tables: fleet::tables(request.tables)?,
        };
        self.store.report(stream, report, now).await?;
        counter!("malote_fleet_reports_total").increment(1);
        Ok(ReportResponse {})
    }

    /// Begins a stream of commands with what has not ended.
    ///
    /// # Errors
    /// `FENCED` where the epoch is older or lapsed, `RATE_LIMITED` where the tenant has too many of them.
    pub async fn commands(
        &self,
        caller: &Caller,
        request: CommandsRequest,
        now: Wall,
    ) -> Result<Commands> {
        let stream = stream(caller, &request.erp)?;
        let seat = Seat::take(&self.board, caller.tenant)?;
        let epoch = Epoch(request.epoch);
        let taken = self.store.take_orders(stream.clone(), (epoch, 0), now).await?;
        let after = taken.last().map_or(0, |order| order.number);
        let (fleet, end) = (self.clone(), Mono::now() + limits::COMMAND_STREAM_LIFE);
        Ok(Commands { fleet, stream, epoch, after, taken: taken.into(), end, _seat: seat })
    }

    /// Takes what an agent says of an order. `epoch` is that of its session, where it tells it.
    ///
    /// # Errors
    /// `NOT_FOUND` where its stream was not given that order, `FENCED`, `INVALID_ARGUMENT`.
    pub async fn progress(
        &self,
        caller: &Caller,
        epoch: Option<Epoch>,
        request: ProgressRequest,
        now: Wall,
    ) -> Result<ProgressResponse> {
        let id: OrderId = request.id.parse()?;
        let code = fleet::bounded("code", request.code)?;
        let event = match (request.done, code.is_empty()) {
            (true, whole) => OrderEvent::End { failed: !whole },
            (false, _) => OrderEvent::Begin,
        };
        self.store.progress(caller.stream(), (epoch, id), (event, code), now).await?;
        Ok(ProgressResponse {})
    }

    /// Agents of a tenant, by environment, ERP and instance.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn agents(&self, tenant: TenantId, page: Page, now: Wall) -> Result<Vec<AgentView>> {
        self.store.agent_views(tenant, page, now).await
    }

    /// Tables of a stream as its agent reported them last, by name.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn tables(
        &self,
        place: Place,
        query: TableQuery,
        page: Page,
        now: Wall,
    ) -> Result<Vec<TableView>> {
        self.store.table_views(place, query, page, now).await
    }

    /// Gives an order to whichever agent sends the stream; a dry run only looks whether it could be given.
    ///
    /// # Errors
    /// `BAD_REQUEST` where its arguments do not fit, `NOT_FOUND` for a table that is not shared, `RATE_LIMITED` where
    /// too many of the stream have not ended.
    pub async fn order(
        &self,
        place: Place,
        wish: OrderWish,
        dry_run: bool,
        now: Wall,
    ) -> Result<Ordered> {
        let wish = wish.checked()?;
        if dry_run {
            self.store.may_order(place, wish.clone()).await?;
            let OrderWish { verb, table, args } = wish;
            let order = OrderView {
                order: None,
                verb,
                table,
                args: order::shown(args),
                state: OrderState::Waiting,
                code: None,
                who: self.store.who().to_owned(),
                ordered_at: At(now.0),
                sent_at: None,
                ended_at: None,
            };
            return Ok(Ordered { applied: false, order });
        }
        let id = OrderId(runtime::entropy::uuid());
        let order = self.store.add_order(place, (id, wish), now).await?;
        counter!("malote_fleet_orders_total", "verb" => order.verb.as_str()).increment(1);
        Ok(Ordered { applied: true, order })
    }

    /// Orders of a stream, the newest first.
    ///
    /// # Errors
    /// `BAD_ID` where `page.after` is no number.
    pub async fn orders(
        &self,
        place: Place,
        query: OrderQuery,
        page: Page,
    ) -> Result<Vec<OrderView>> {
        self.store.order_views(place, query, page).await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn one_order(&self, place: Place, number: i64) -> Result<OrderView> {
        self.store.order_view(place, number).await
    }

    /// Takes an order back that no agent has.
    ///
    /// # Errors
    /// `NOT_FOUND`, `ORDER_SENT`.
    pub async fn withdraw(&self, place: Place, number: i64, now: Wall) -> Result<OrderView> {
        self.store.withdraw_order(place, number, now).await
    }

    /// Number of the newest order, as it was at most [`LOOK`] ago.
    async fn newest(&self) -> Result<i64> {
        let mut looked = self.board.looked.lock().await;
        if let Some((_, newest)) = looked.filter(|(at, _)| at.elapsed() < LOOK) {
            return Ok(newest);
        }
        let newest = self.store.newest_order().await?;
        *looked = Some((Mono::now(), newest));
        Ok(newest)
    }
}

impl Commands {
    /// The next order; `None` once the stream has had its time.
    ///
    /// # Errors
    /// `FENCED` where the lease is another's by now, the store's own.
    pub async fn next(&mut self) -> Result<Option<Command>> {
        loop {
            if let Some(order) = self.taken.pop_front() {
                return Ok(Some(order.command()));
            }
            if Mono::now() >= self.end {
                return Ok(None);
            }
            let newest = self.fleet.newest().await?;
            if newest > self.after {
                let (of, stream) = ((self.epoch, self.after), self.stream.clone());
                let taken = self.fleet.store.take_orders(stream, of, Wall::now()).await?;
                // Those in between are of other streams.
                let last = taken.last().map_or(newest, |order| order.number);
                self.after = last.max(newest);
                self.taken = taken.into();
            } else {
                clock::sleep(LOOK).await;
            }
        }
    }
}

impl Seat {
    fn take(board: &Arc<Board>, tenant: TenantId) -> Result<Self> {
        let mut streams = board.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = streams.entry(tenant).or_default();
        if *taken >= limits::TENANT_COMMAND_STREAMS {
            let words = format!("the tenant has {taken} streams of commands");
            return Err(Error::new(Code::RateLimited, words).retry_in(STREAM_WAIT));
        }
        *taken += 1;
        Ok(Self { board: Arc::clone(board), tenant })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut streams = self.board.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = streams.get_mut(&self.tenant) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                streams.remove(&self.tenant);
            }
        }
    }
}

fn stream(caller: &Caller, erp: &str) -> Result<StreamId> {
    let erp: ErpName = erp.parse()?;
    caller.may_send(&erp)?;
    Ok(caller.stream())
}

#[cfg(test)]
mod tests;
