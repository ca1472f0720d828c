//! Messages of Data Sharing: the pre-scan, a message on its way to staging, a Summary, key bytes.
//!
//! Promises: what the pre-scan takes is within its limits and reads alike by prost; what the server acknowledged is
//! staged or in quarantine; a Summary is taken only where its counts are the batch's.
//! Never: sends two messages of one number, so that nothing waits for a predecessor.

use prost::Message as _;
use protocol::{
    Code,
    error::Class,
    ids::ClientId,
    key::KeyBytes,
    limits,
    names::ErpName,
    proto::totvs::{BatchSummary, Table, table},
    wire::TableView,
};
use runtime::clock::Wall;
use server::{
    model::catalog::Place,
    service::{Caller, Services, catalog::NewEntity},
    store::sqlite,
};
use tokio::runtime::Runtime;

use super::{Found, Kept, asynchronous, fault, folder, holds, set_up};

const ERP: &str = "RM";
/// The clock of these worlds stands still: 2027.
const NOW: Wall = Wall(1_800_000_000_000_000);
/// What a world takes before it is made anew.
const WORLD_BYTES: usize = 32 * 1024 * 1024;
const WORLD_BATCHES: i64 = 400;

/// The pre-scan against its limits and against prost.
pub(super) fn scan(bytes: &[u8]) -> Found {
    let view = match TableView::scan(bytes) {
        Ok(view) => view,
        Err(error) => {
            let known = matches!(error.code, Code::MessageTooLarge | Code::InvalidArgument);
            return holds(known, || format!("the pre-scan refuses by {error}"));
        }
    };
    let bounded = bytes.len() <= limits::MESSAGE_BYTES
        && view.row_count() <= limits::MESSAGE_ROWS
        && view.cell_count() <= limits::MESSAGE_CELLS
        && view.schema.columns.len() <= limits::TABLE_COLUMNS
        && view.schema.key.len() <= limits::KEY_COLUMNS;
    holds(bounded, || "a message above a limit was taken".to_owned())?;
    let read = Table::decode(bytes).map_err(fault("taken, and prost refuses it"))?;
    let head = (view.table_name, view.erp, view.batch_id, view.message_number, view.record_count);
    let same = head
        == (
            read.table_name.as_str(),
            read.erp.as_str(),
            read.batch_id,
            read.message_number,
            read.record_count,
        );
    holds(same && view.is_base_load == read.is_base_load, || format!("another head: {head:?}"))?;
    let schema = read.schema.unwrap_or_default();
    let columns: Vec<_> = schema
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.r#type.as_str()))
        .collect();
    let key = schema.primary_key.unwrap_or_default();
    let same = columns == view.schema.columns
        && key.columns == view.schema.key
        && key.name == view.schema.key_name
        && schema.flexible == view.schema.flexible;
    holds(same, || "another schema".to_owned())?;
    holds(view.rows().len() == read.rows.len(), || "another number of rows".to_owned())?;
    let mut names: Vec<_> = columns.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    let unique = names.windows(2).all(|pair| pair.first() != pair.last());
    view.rows().zip(&read.rows).try_for_each(|(cells, row)| {
        let same = cells.len() == row.columns.len()
            && cells.iter().zip(&row.columns).all(|(cell, column)| {
                // Of equal names any may be found; a schema that has them is refused.
                let named = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case(cell.name);
                let wanted = columns.iter().position(named);
                let found = cell.column.map(usize::from);
                let right = if unique {
                    found == wanted
                } else {
                    found.is_some() == wanted.is_some()
                        && found.is_none_or(|at| columns.get(at).is_some_and(named))
                };
                right
                    && (cell.name, cell.value) == (column.name.as_str(), column.value.as_str())
                    && !cell.name.is_empty()
                    && cell.name.len() <= limits::COLUMN_NAME_BYTES
            });
        holds(same, || "another row".to_owned())
    })
}

/// Key bytes as `Reconcile` and the administration take them.
pub(super) fn key(bytes: &[u8]) -> Found {
    let key = KeyBytes(bytes.to_vec());
    match key.values() {
        Ok(values) => holds(KeyBytes::of(values).0 == bytes, || "another key".to_owned()),
        Err(error) => holds(error.code == Code::BadRequest, || format!("refused by {error}")),
    }
}

/// The services of a server over a store of their own.
struct World {
    runtime: Runtime,
    services: Services,
    caller: Caller,
    batch: i64,
    taken: usize,
    _folder: tempfile::TempDir,
}

static WORLD: Kept<World> = Kept::new();

pub(super) fn end() {
    WORLD.end();
}

impl World {
    fn new() -> Found<Self> {
        let (runtime, folder) = (asynchronous()?, folder()?);
        sqlite::migrate(&folder.path().join("store.sqlite")).map_err(fault("no store"))?;
        let made = runtime.block_on(async {
            let services = Services::open(folder.path(), "http://127.0.0.1".to_owned()).await?;
            let catalog = &services.catalog;
            let (tenant, environment, installation) = set_up(catalog, ERP).await?;
            let erp: ErpName = ERP.parse()?;
            let place: Place = catalog.place(tenant, "", "").await?;
            let entity = |table: &str| {
                Ok(NewEntity { table: table.parse()?, filter: None, is_custom: false })
            };
            let entities: protocol::Result<Vec<_>> =
                ["FLAN", "TMOV"].into_iter().map(entity).collect();
            catalog.add_entities(&place, entities?).await?;
            let client: ClientId = "client".parse()?;
            let caller = Caller { tenant, environment, installation, client, erp, connection: 1 };
            Ok::<_, protocol::Error>((services, caller))
        });
        let (services, caller) = made.map_err(fault("no world"))?;
        let batch = NOW.seconds() - 10_000;
        Ok(Self { runtime, services, caller, batch, taken: 0, _folder: folder })
    }

    /// Sends message 1 of the next batch; `Ok` where it was acknowledged.
    fn sent(&mut self, bytes: Vec<u8>) -> protocol::Result<()> {
        self.batch += 1;
        self.taken += bytes.len();
        let write = self.services.ingest.write(&self.caller, None, bytes::Bytes::from(bytes), NOW);
        self.runtime.block_on(write)
    }

    fn is_spent(&self) -> bool {
        self.taken > WORLD_BYTES || self.batch > NOW.seconds() - 10_000 + WORLD_BATCHES
    }
}

/// Refused for what came or for what is missing of it, never for a fault of the program or its store.
fn refused(error: &protocol::Error) -> Found {
    let by_store = matches!(error.code, Code::StoreFailed | Code::StoreBusy | Code::DiskFull);
    holds(error.class() != Class::Bug && !by_store, || format!("refused by {error:?}"))
}

/// A message from its bytes to staging, as message 1 of a batch of its own.
pub(super) fn table(bytes: &[u8]) -> Found {
    let spent = WORLD.with(World::new, |world| {
        // The last one of a field that comes twice counts.
        let place = Table { batch_id: world.batch + 1, message_number: 1, ..Table::default() };
        let message = [bytes, &place.encode_to_vec()].concat();
        if let Err(error) = world.sent(message.clone()) {
            refused(&error)?;
            return Ok(world.is_spent());
        }
        scan(&message)?;
        let read = Table::decode(message.as_slice()).map_err(fault("acknowledged"))?;
        let rows = usize::try_from(read.record_count).unwrap_or(usize::MAX);
        holds(rows == read.rows.len(), || "acknowledged with another count".to_owned())?;
        let (stream, staging) = (world.caller.stream(), &world.services.staging);
        let applied = world.runtime.block_on(staging.apply(&stream, NOW));
        let applied = applied.map_err(|error| format!("acknowledged, not applied: {error:?}"))?;
        let told = applied.messages == 1 && (rows == 0 || applied.rows + applied.quarantined > 0);
        holds(told, || format!("acknowledged, and of {rows} rows: {applied:?}"))?;
        Ok(world.is_spent())
    })?;
    if spent {
        end();
    }
    Ok(())
}

fn one_row() -> Table {
    let column =
        |name: &str, value: &str| table::RowColumn { name: name.into(), value: value.into() };
    let kind =
        |name: &str| table::schema::SchemaColumn { name: name.into(), r#type: "string".into() };
    Table {
        table_name: "FLAN".into(),
        erp: ERP.into(),
        rows: vec![table::TableRow { columns: vec![column("ID", "1"), column("V", "x")] }],
        schema: Some(table::Schema {
            flexible: true,
            export_data: true,
            columns: vec![kind("ID"), kind("V")],
            primary_key: Some(table::schema::SchemaPrimaryKey {
                name: "FLAN".into(),
                columns: vec!["ID".into()],
            }),
        }),
        message_number: 1,
        record_count: 1,
        ..Table::default()
    }
}

/// A Summary for an open batch of one message with one row.
pub(super) fn summary(bytes: &[u8]) -> Found {
    let Ok(asked) = BatchSummary::decode(bytes) else { return Ok(()) };
    let spent = WORLD.with(World::new, |world| {
        let batch = world.batch + 1;
        let message = Table { batch_id: batch, ..one_row() }.encode_to_vec();
        world.sent(message).map_err(fault("a good message was refused"))?;
        // Zero stands for the open batch: a mutation rarely guesses its id.
        let batch_id = if asked.batch_id == 0 { batch } else { asked.batch_id };
        let asked = BatchSummary { batch_id, ..asked.clone() };
        let ingest = &world.services.ingest;
        let close = || ingest.summary(&world.caller, None, &[], &asked, NOW);
        match world.runtime.block_on(close()) {
            Err(error) => refused(&error)?,
            Ok(()) => {
                let true_counts = (asked.message_count, asked.record_count) == (1, 1);
                holds(true_counts && asked.erp.trim().eq_ignore_ascii_case(ERP), || {
                    format!("taken with another manifest: {asked:?}")
                })?;
                let again = world.runtime.block_on(close());
                again.map_err(fault("taken, and refused when it came again"))?;
            }
        }
        Ok(world.is_spent())
    })?;
    if spent {
        end();
    }
    Ok(())
}
