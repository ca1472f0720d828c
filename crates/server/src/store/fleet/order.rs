//! Orders in the embedded store: given by people, taken by the holder of a stream's lease, ended by its word.
//!
//! Promises: an order is noted as sent before it leaves; each step is judged by `model::order` under the store's one
//! writer; giving and withdrawing stand in the audit with who did it; keys that it names are gone once it has ended;
//! an instance that takes a stream over is told the pauses that were ordered for it.
//! Never: forgets an order that has not ended; shows a key.

use std::collections::BTreeMap;

use crate::store::sql::{Optional as _, Row, SqlError, SqlResult, Tx, named_params, params};
use protocol::{
    Code, Error, Result,
    ids::{Epoch, OrderId},
    limits,
};
use runtime::{clock::Wall, failpoint};

use super::holds;
use crate::model::{
    catalog::{At, Page, Place},
    order::{Order, OrderEvent, OrderQuery, OrderState, OrderView, OrderWish, Verb, shown, step},
    stream::StreamId,
};
use crate::store::{
    Store, Whose,
    audit::Deed,
    catalog::{parsed, rows, text_as, time},
    failed,
    ingest::{head, names},
};

type Args = BTreeMap<String, String>;

/// The newest pause or resume of a table that was carried out. A resume counts where it ends a pause that is known.
macro_rules! in_force {
    () => {
        "fleet_order.state = 'done' AND fleet_order.verb IN ('PAUSE', 'RESUME')
            AND NOT EXISTS (SELECT 1 FROM fleet_order n
                  WHERE (n.tenant_id, n.environment_id, n.erp) =
                        (fleet_order.tenant_id, fleet_order.environment_id, fleet_order.erp)
                    AND n.seq > fleet_order.seq AND n.state = 'done' AND n.verb IN ('PAUSE', 'RESUME')
                    AND (n.name IS NULL OR lower(n.name) = lower(fleet_order.name)))
            AND (fleet_order.verb = 'PAUSE' OR EXISTS (SELECT 1 FROM fleet_order p
                  WHERE (p.tenant_id, p.environment_id, p.erp) =
                        (fleet_order.tenant_id, fleet_order.environment_id, fleet_order.erp)
                    AND p.seq < fleet_order.seq AND p.state = 'done' AND p.verb = 'PAUSE'
                    AND (fleet_order.name IS NULL OR p.name IS NULL OR lower(p.name) = lower(fleet_order.name))))"
    };
}

const SELECT: &str = "SELECT seq, verb, name, args, state, code, who, ordered_at, sent_at, ended_at FROM fleet_order";

impl Store {
    /// Who acts through this handle.
    #[must_use]
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    /// Whether an order may be given: its table is shared, and the stream has room for one more.
    ///
    /// # Errors
    /// `NOT_FOUND`, `RATE_LIMITED`.
    pub(crate) async fn may_order(&self, place: Place, wish: OrderWish) -> Result<()> {
        self.read(place.tenant, move |connection| fits(connection, &place, &wish)).await
    }

    /// Keeps an order; the oldest that ended go.
    ///
    /// # Errors
    /// As [`Store::may_order`].
    pub(crate) async fn add_order(
        &self,
        place: Place,
        (id, wish): (OrderId, OrderWish),
        now: Wall,
    ) -> Result<OrderView> {
        let table = wish.table.as_ref().map_or("all tables", |table| table.as_str());
        let args = shown(wish.args.clone());
        let detail: Vec<_> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let deed = Deed::of("fleet.order", place.tenant, place.name_of(table))
            .with(format!("{} {}", wish.verb.as_str(), detail.join(" ")).trim());
        let who = self.who.to_string();
        self.audited(deed, move |tx| {
            fits(tx, &place, &wish)?;
            add(tx, &place, (id, &wish, &who), now)
        })
        .await
    }

    /// Takes an order back that no agent has.
    ///
    /// # Errors
    /// `NOT_FOUND`, `ORDER_SENT`.
    pub(crate) async fn withdraw_order(
        &self,
        place: Place,
        number: i64,
        now: Wall,
    ) -> Result<OrderView> {
        let deed =
            Deed::of("fleet.withdraw", place.tenant, place.name_of(format!("order {number}")));
        self.audited(deed, move |tx| {
            let found = one(tx, &place, number)?;
            let state = step(found.state, OrderEvent::Withdraw).map_err(|code| {
                Error::new(code, format!("order {number} is {}", found.state.as_str()))
            })?;
            let ended_at = found.ended_at.unwrap_or(At(now.0));
            let sql = "UPDATE fleet_order SET state = ?2, ended_at = ?3, args = ?4 WHERE seq = ?1";
            let values = params![number, state.as_str(), ended_at.0, text(&found.args)?];
            tx.execute(sql, values).map_err(failed)?;
            Ok(OrderView { state, ended_at: Some(ended_at), ..found })
        })
        .await
    }

    /// Orders of a stream, the newest first; the page goes on below the number given as `after`.
    pub(crate) async fn order_views(
        &self,
        place: Place,
        query: OrderQuery,
        page: Page,
    ) -> Result<Vec<OrderView>> {
        let bad = |_| Error::new(Code::BadId, "an order's number is a number");
        let below: i64 = match page.after.trim() {
            "" => i64::MAX,
            text => text.parse().map_err(bad)?,
        };
        self.read(place.tenant, move |connection| {
            let sql = format!(
                "{SELECT} WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND seq < :below
                    AND (:state IS NULL OR state = :state) AND (:verb IS NULL OR verb = :verb)
                  ORDER BY seq DESC LIMIT :limit"
            );
            rows(
                connection,
                &sql,
                named_params! {":tenant": place.tenant.to_string(), ":environment": place.environment.to_string(),
                    ":erp": place.erp.as_str(), ":below": below, ":limit": page.limit,
                    ":state": query.state.map(OrderState::as_str), ":verb": query.verb.map(Verb::as_str)},
                view,
            )
        })
        .await
    }

    /// An order of a stream.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(crate) async fn order_view(&self, place: Place, number: i64) -> Result<OrderView> {
        self.read(place.tenant, move |connection| one(connection, &place, number)).await
    }

    /// Number of the newest order of all streams; 0 = none was ever given.
    pub(crate) async fn newest_order(&self) -> Result<i64> {
        self.read(Whose::All, |connection| {
            let sql = "SELECT coalesce(max(seq), 0) FROM fleet_order";
            connection.query_row(sql, [], |row| row.get(0)).map_err(failed)
        })
        .await
    }

    /// Orders of a stream numbered above `after` that have not ended, in order; they count as sent from now on. From the
    /// start (0) also the pauses in force, and what ended them, that another instance carried out last.
    ///
    /// # Errors
    /// `FENCED` where the epoch does not hold a live lease.
    pub(crate) async fn take_orders(
        &self,
        stream: StreamId,
        (epoch, after): (Epoch, i64),
        now: Wall,
    ) -> Result<Vec<Order>> {
        self.write(stream.tenant, move |tx| {
            failpoint::reach("fleet.orders", Code::StoreFailed)?;
            holds(tx, &stream, epoch, now)?;
            send(tx, &stream, after, now)
        })
        .await
    }

    /// What an agent says of an order of its stream. Without an epoch it is taken while a lease is live.
    ///
    /// # Errors
    /// `NOT_FOUND` where its stream was not given that order, `FENCED` where the epoch does not hold a live lease.
    pub(crate) async fn progress(
        &self,
        stream: StreamId,
        (epoch, id): (Option<Epoch>, OrderId),
        (event, code): (OrderEvent, String),
        now: Wall,
    ) -> Result<()> {
        self.write(stream.tenant, move |tx| {
            failpoint::reach("fleet.progress", Code::StoreFailed)?;
            note(tx, &stream, (epoch, id), (event, &code), now)
        })
        .await
    }
}

fn fits(connection: &Tx<'_>, place: &Place, wish: &OrderWish) -> Result<()> {
    let of =
        [place.tenant.to_string(), place.environment.to_string(), place.erp.as_str().to_owned()];
    let [tenant, environment, erp] = &of;
    if let Some(table) = &wish.table {
        let sql = "SELECT EXISTS (SELECT 1 FROM entity WHERE withdrawn_at IS NULL
                     AND (tenant_id, environment_id, erp, name_folded) = (?1, ?2, ?3, ?4))";
        let shared: bool = connection
            .prepare_cached(sql)
            .map_err(failed)?
            .query_row(params![tenant, environment, erp, table.folded()], |row| row.get(0))
            .map_err(failed)?;
        if !shared {
            return Err(Error::new(Code::NotFound, format!("table {table} is not shared")));
        }
    }
    let sql =
        "SELECT count(*) FROM fleet_order WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                 AND state IN ('waiting', 'sent', 'under-way')";
    let open: i64 = connection
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp], |row| row.get(0))
        .map_err(failed)?;
    if open >= i64::try_from(limits::STREAM_ORDERS_OPEN).unwrap_or(i64::MAX) {
        let words = format!("{open} orders of this stream have not ended; withdraw some, or wait");
        return Err(Error::new(Code::RateLimited, words));
    }
    Ok(())
}

fn add(
    tx: &Tx<'_>,
    place: &Place,
    (id, wish, who): (OrderId, &OrderWish, &str),
    now: Wall,
) -> Result<OrderView> {
    let of =
        [place.tenant.to_string(), place.environment.to_string(), place.erp.as_str().to_owned()];
    let [tenant, environment, erp] = &of;
    let args = text(&wish.args)?;
    let sql = "INSERT INTO fleet_order (id, tenant_id, environment_id, erp, verb, name, args, who, ordered_at, state)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'waiting') RETURNING seq";
    let name = wish.table.as_ref().map(|table| table.as_str());
    let values = params![
        id.to_string(),
        tenant,
        environment,
        erp,
        wish.verb.as_str(),
        name,
        args,
        who,
        now.0
    ];
    let number: i64 = tx.query_row(sql, values, |row| row.get(0)).map_err(failed)?;
    let surplus = concat!(
        "DELETE FROM fleet_order WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND ended_at IS NOT NULL
                     AND seq < (SELECT min(seq) FROM (SELECT seq FROM fleet_order
                                 WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND ended_at IS NOT NULL
                                 ORDER BY seq DESC LIMIT ?4) kept) AND NOT (",
        in_force!(),
        ")"
    );
    let kept = i64::try_from(limits::STREAM_ORDERS_KEPT).unwrap_or(i64::MAX);
    tx.execute(surplus, params![tenant, environment, erp, kept]).map_err(failed)?;
    one(tx, place, number)
}

fn one(connection: &Tx<'_>, place: &Place, number: i64) -> Result<OrderView> {
    let sql =
        format!("{SELECT} WHERE seq = ?1 AND (tenant_id, environment_id, erp) = (?2, ?3, ?4)");
    let values = params![
        number,
        place.tenant.to_string(),
        place.environment.to_string(),
        place.erp.as_str()
    ];
    let found = connection
        .prepare_cached(&sql)
        .map_err(failed)?
        .query_row(values, view)
        .optional()
        .map_err(failed)?;
    found.ok_or_else(|| Error::new(Code::NotFound, format!("there is no order {number}")))
}

fn send(tx: &Tx<'_>, stream: &StreamId, after: i64, now: Wall) -> Result<Vec<Order>> {
    let [tenant, environment, erp] = &names(stream);
    let found = rows(
        tx,
        concat!(
            "SELECT seq, id, verb, name, args, who, state FROM fleet_order
              WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp) AND seq > :after
                AND (state IN ('waiting', 'sent', 'under-way') OR (:after = 0 AND ended_by IS DISTINCT FROM (
                     SELECT holder FROM ingest_stream
                      WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp)) AND ",
            in_force!(),
            ")) ORDER BY seq"
        ),
        named_params! {":tenant": tenant, ":environment": environment, ":erp": erp, ":after": after},
        |row| {
            let wish =
                OrderWish { verb: parsed(row, 2)?, table: text_as(row, 3)?, args: args(row, 4)? };
            let (number, id) = (row.get(0)?, parsed(row, 1)?);
            Ok((Order { number, id, wish, who: row.get(5)? }, parsed::<OrderState>(row, 6)?))
        },
    )?;
    let mut orders = Vec::with_capacity(found.len());
    for (order, state) in found {
        // What another instance carried out stays done.
        let Ok(next) = step(state, OrderEvent::Send) else {
            orders.push(order);
            continue;
        };
        let sql =
            "UPDATE fleet_order SET state = ?2, sent_at = coalesce(sent_at, ?3) WHERE seq = ?1";
        tx.prepare_cached(sql)
            .map_err(failed)?
            .execute(params![order.number, next.as_str(), now.0])
            .map_err(failed)?;
        orders.push(order);
    }
    Ok(orders)
}

fn note(
    tx: &Tx<'_>,
    stream: &StreamId,
    (epoch, id): (Option<Epoch>, OrderId),
    (event, code): (OrderEvent, &str),
    now: Wall,
) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let missing = || Error::new(Code::NotFound, "this stream was not given such an order");
    let sql = "SELECT seq, state, args FROM fleet_order WHERE id = ?4 AND (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let found: Option<(i64, OrderState, Args)> = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, id.to_string()], |row| {
            Ok((row.get(0)?, parsed(row, 1)?, args(row, 2)?))
        })
        .optional()
        .map_err(failed)?;
    let (number, state, args) = found.ok_or_else(missing)?;
    let head = head(tx, stream, now)?;
    holds(tx, stream, epoch.unwrap_or(head.epoch), now)?;
    let next = step(state, event).map_err(|_| missing())?;
    if matches!(event, OrderEvent::End { .. }) {
        let sql = "UPDATE fleet_order SET ended_by = (SELECT holder FROM ingest_stream
                     WHERE (tenant_id, environment_id, erp) = (?2, ?3, ?4)) WHERE seq = ?1";
        let mut statement = tx.prepare_cached(sql).map_err(failed)?;
        statement.execute(params![number, tenant, environment, erp]).map_err(failed)?;
    }
    if next == state {
        return Ok(());
    }
    let code = (next == OrderState::Failed).then_some(code);
    let (ended_at, args) = if next.is_over() { (Some(now.0), shown(args)) } else { (None, args) };
    let sql =
        "UPDATE fleet_order SET state = ?2, code = ?3, ended_at = ?4, args = ?5 WHERE seq = ?1";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![number, next.as_str(), code, ended_at, text(&args)?])
        .map_err(failed)?;
    Ok(())
}

fn text(args: &Args) -> Result<String> {
    serde_json::to_string(args)
        .map_err(|cause| Error::new(Code::Internal, "an order cannot be written").because(cause))
}

fn args(row: &Row<'_>, at: usize) -> SqlResult<Args> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text).map_err(|cause| SqlError::column(at, cause))
}

fn view(row: &Row<'_>) -> SqlResult<OrderView> {
    Ok(OrderView {
        order: Some(row.get(0)?),
        verb: parsed(row, 1)?,
        table: text_as(row, 2)?,
        args: shown(args(row, 3)?),
        state: parsed(row, 4)?,
        code: row.get(5)?,
        who: row.get(6)?,
        ordered_at: At(row.get(7)?),
        sent_at: time(row, 8)?,
        ended_at: time(row, 9)?,
    })
}
