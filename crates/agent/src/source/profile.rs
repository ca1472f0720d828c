//! Profile: what an ERP means by its tables (`contracts.md` 8): physical names, key, stamp, soft delete, extra columns.
//!
//! Promises: a whole record travels, the control columns of Protheus included; `protheus_pk` is the company group and
//! the canonical texts of the key fields, blanks kept, joined by `|`, so that two keys never become one.
//! Never: asks a database; the catalogue is its input.

use std::{collections::BTreeSet, time::Duration};

use protocol::{
    Code, Error, Result, limits,
    names::{ColumnName, DELETED, STAGING_COLUMNS, TableName},
    value::{ColumnType, TypeName},
};

use super::{
    ColumnShape, ColumnSource, StampShape, TableShape, TableSpec,
    catalogue::{Found, FoundColumn},
    disclosure::{self, Needed},
};

const STAMP: &str = "S_T_A_M_P_";
const DELETE_MARK: &str = "D_E_L_E_T_";
const ROW_NUMBER: &str = "R_E_C_N_O_";
const DELETED_ROW_NUMBER: &str = "R_E_C_D_E_L_";
/// Row number that Progress keeps in each table of another kind of database.
const RECORD_ID: &str = "PROGRESS_RECID";
const RM_STAMP: &str = "RECMODIFIEDON";
/// RM's stamps come from the clocks of its application servers (`correctness.md` 3 a).
const RM_ALLOWANCE: Duration = Duration::from_secs(300);

/// The ERP behind a database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    Rm,
    Protheus {
        /// Company group, `01`: part of the physical table name and of every key.
        company_group: String,
        layout: BranchLayout,
    },
    /// As a plain source; where neither a primary key nor a declared one is there, `PROGRESS_RECID` or the only unique
    /// index names the rows.
    Datasul,
    /// As a plain source; where neither a primary key nor a declared one is there, the only unique index names the rows.
    Logix,
    #[default]
    Generic,
}

/// How the branch code splits: the first characters are the company, the next the unity, the rest the branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BranchLayout {
    pub company: usize,
    pub unity: usize,
}

impl Profile {
    /// The name to look for in the catalogue, in any case.
    #[must_use]
    pub fn physical(&self, wire: &TableName) -> String {
        match self {
            Self::Protheus { company_group, .. } => format!("{wire}{company_group}0"),
            Self::Rm | Self::Datasul | Self::Logix | Self::Generic => wire.as_str().to_owned(),
        }
    }

    /// The wire name of a physical table; `None` = not a table of this profile.
    #[must_use]
    pub fn wire(&self, physical: &str) -> Option<String> {
        match self {
            Self::Protheus { company_group, .. } => {
                let alias = physical.strip_suffix(&format!("{company_group}0"))?;
                let fits = alias.len() == 3 && alias.bytes().all(|b| b.is_ascii_alphanumeric());
                fits.then(|| alias.to_ascii_uppercase())
            }
            Self::Rm | Self::Datasul | Self::Logix | Self::Generic => Some(physical.to_owned()),
        }
    }

    /// Stamps without a zone are UTC whatever the database's zone is.
    #[must_use]
    pub fn stamps_are_utc(&self) -> bool {
        matches!(self, Self::Protheus { .. })
    }

    /// Reads meaning into what the catalogue shows. `allowance` is what the kind of database needs at least.
    pub(super) fn shape(
        &self,
        spec: &TableSpec,
        found: &Found,
        allowance: Duration,
    ) -> Result<TableShape> {
        let place = |error: Error| error.at(format_args!("table {}", spec.wire));
        let mut columns = self.columns(spec, found).map_err(place)?;
        let (key_fields, page_key) = self.keys(spec, found).map_err(place)?;
        let stamp = self.stamp(spec, found, allowance).map_err(place)?;
        let branch = self.branch_field(&spec.wire).and_then(|name| found.column(&name));
        let needed: Vec<Needed<'_>> = key_fields
            .iter()
            .chain(&page_key)
            .map(|name| Needed { name, why: "the key names its rows and is read by" })
            .chain(stamp.iter().map(|stamp| Needed {
                name: &stamp.column,
                why: "it is the stamp, which travels as the watermark",
            }))
            .chain(branch.map(|column| Needed {
                name: &column.name,
                why: "company, unity and branch are made of it",
            }))
            .collect();
        disclosure::apply(&mut columns, spec, found, &needed).map_err(place)?;
        let key = match self {
            Self::Protheus { company_group, layout } => {
                let fields = positions(&columns, &key_fields).map_err(place)?;
                protheus_columns(&mut columns, company_group, *layout, &spec.wire, fields);
                vec![columns.len() - 1]
            }
            Self::Rm | Self::Datasul | Self::Logix | Self::Generic => {
                positions(&columns, &key_fields).map_err(place)?
            }
        };
        refuse_clashes(&columns).map_err(place)?;
        let shared_key = matches!(self, Self::Protheus { .. })
            && !key_fields.iter().any(|name| name.eq_ignore_ascii_case(ROW_NUMBER));
        Ok(TableShape {
            wire: spec.wire.clone(),
            physical: (found.schema.clone(), found.table.clone()),
            columns,
            key,
            page_key,
            stamp,
            soft_delete: self.soft_delete(spec, found).map_err(place)?,
            shared_key,
            fingerprint: found.fingerprint,
        })
    }

    fn columns(&self, spec: &TableSpec, found: &Found) -> Result<Vec<ColumnShape>> {
        for (name, _) in &spec.types {
            wanted(found, name.as_str())?;
        }
        let upper = matches!(self, Self::Protheus { .. });
        let shape = |column: &FoundColumn| {
            let wire = if upper { column.name.to_ascii_uppercase() } else { column.name.clone() };
            let name: ColumnName = wire.parse()?;
            if name.as_str() != wire {
                return Err(Error::new(
                    Code::BadName,
                    format!("column {wire:?} begins or ends with blanks"),
                ));
            }
            let declared = spec.types.iter().find(|(of, _)| *of == name).map(|(_, given)| *given);
            let from = ColumnSource::Physical(column.name.clone());
            let type_name = declared.unwrap_or(column.type_name);
            Ok(ColumnShape { name, type_name, from, mask: None })
        };
        found.columns.iter().map(shape).collect()
    }

    /// Key fields and page key, as physical columns.
    fn keys(&self, spec: &TableSpec, found: &Found) -> Result<(Vec<String>, Vec<String>)> {
        let declared = match &spec.key {
            Some(names) => Some(
                names
                    .iter()
                    .map(|name| wanted(found, name.as_str()).map(|column| column.name.clone()))
                    .collect::<Result<Vec<_>>>()?,
            ),
            None => None,
        };
        let primary = (!found.primary.is_empty()).then(|| found.primary.clone());
        let (fields, page_key) = match self {
            Self::Protheus { .. } => {
                let row_number = found.column(ROW_NUMBER).map(|column| vec![column.name.clone()]);
                let page_key = row_number.or(primary).or_else(|| declared.clone());
                let fields =
                    declared.or_else(|| protheus_unique(found)).or_else(|| page_key.clone());
                (fields, page_key)
            }
            Self::Rm | Self::Generic => {
                let key = primary.or(declared);
                (key.clone(), key)
            }
            Self::Datasul | Self::Logix => {
                let own = (*self == Self::Datasul).then_some(RECORD_ID);
                let key = primary.or(declared).or_else(|| unique_key(found, own));
                (key.clone(), key)
            }
        };
        let (Some(fields), Some(page_key)) = (fields, page_key) else {
            return Err(Error::new(
                Code::TableWithoutKey,
                "no primary key in the catalogue and none declared",
            ));
        };
        if fields.is_empty() || fields.len() > limits::KEY_COLUMNS {
            let words = format!("a key has 1 to {} columns", limits::KEY_COLUMNS);
            return Err(Error::new(Code::TableWithoutKey, words));
        }
        for name in fields.iter().chain(&page_key) {
            if let Some(why) = found.column(name).and_then(|column| column.key_unfit) {
                let words = format!("column {name} cannot be part of a key: {why}");
                return Err(Error::new(Code::TableWithoutKey, words));
            }
        }
        Ok((fields, page_key))
    }

    fn stamp(
        &self,
        spec: &TableSpec,
        found: &Found,
        floor: Duration,
    ) -> Result<Option<StampShape>> {
        if spec.no_stamp {
            return Ok(None);
        }
        let column = match (&spec.stamp, self) {
            (Some(declared), _) => {
                let column = found.column(declared.as_str()).ok_or_else(|| {
                    Error::new(Code::StampUnfit, format!("there is no column {declared}"))
                })?;
                if let Some(why) = column.stamp_unfit {
                    let words = format!("column {declared} cannot order changes: {why}");
                    return Err(Error::new(Code::StampUnfit, words));
                }
                Some(column)
            }
            (None, Self::Rm) => found.column(RM_STAMP),
            (None, Self::Protheus { .. }) => found.column(STAMP),
            // Neither has a documented control column: declared, or compared whole.
            (None, Self::Datasul | Self::Logix | Self::Generic) => None,
        };
        let usual = if *self == Self::Rm { RM_ALLOWANCE.max(floor) } else { floor };
        Ok(column.filter(|column| column.stamp_unfit.is_none()).map(|column| StampShape {
            column: column.name.clone(),
            allowance: spec.allowance.unwrap_or(usual),
            form: String::new(),
            nullable: column.nullable,
        }))
    }

    /// The column that the branch's parts are made of.
    fn branch_field(&self, wire: &TableName) -> Option<String> {
        matches!(self, Self::Protheus { .. }).then(|| branch_field(wire))
    }

    fn soft_delete(&self, spec: &TableSpec, found: &Found) -> Result<Option<(String, String)>> {
        if let Some((name, mark)) = &spec.soft_delete {
            let column = wanted(found, name.as_str())?;
            return Ok(Some((column.name.clone(), mark.trim().to_owned())));
        }
        let protheus = matches!(self, Self::Protheus { .. });
        let column = found.column(DELETE_MARK).filter(|_| protheus);
        Ok(column.map(|column| (column.name.clone(), "*".to_owned())))
    }
}

fn wanted<'f>(found: &'f Found, name: &str) -> Result<&'f FoundColumn> {
    found.column(name).ok_or_else(|| {
        Error::new(Code::ConfigInvalid, format!("there is no column {name}, which is declared"))
    })
}

fn positions(columns: &[ColumnShape], names: &[String]) -> Result<Vec<usize>> {
    let place = |name: &String| {
        let is = |column: &ColumnShape| matches!(&column.from, ColumnSource::Physical(physical) if physical == name);
        columns.iter().position(is).ok_or_else(|| {
            Error::new(Code::TableWithoutKey, format!("key column {name} is not readable"))
        })
    };
    names.iter().map(place).collect()
}

/// The fields of unique index `{table}_UNQ`, without the row number that deleted rows repeat.
fn protheus_unique(found: &Found) -> Option<Vec<String>> {
    let name = format!("{}_UNQ", found.table);
    let (_, columns) = found.unique.iter().find(|(index, _)| index.eq_ignore_ascii_case(&name))?;
    let fields: Vec<String> = columns
        .iter()
        .filter(|column| !column.eq_ignore_ascii_case(DELETED_ROW_NUMBER))
        .cloned()
        .collect();
    (!fields.is_empty()).then_some(fields)
}

/// `SE1` keeps its branch in `E1_FILIAL`, `FKD` in `FKD_FILIAL`.
fn branch_field(wire: &TableName) -> String {
    let alias = wire.as_str();
    let short = alias.strip_prefix(['S', 's']).filter(|rest| rest.len() == 2).unwrap_or(alias);
    format!("{short}_FILIAL")
}

/// The unique index that names a table's rows where the catalogue has no primary key: the one over the row number that
/// the ERP's own database layer keeps, else the only one. Rows without a value in it have no name.
fn unique_key(found: &Found, own: Option<&str>) -> Option<Vec<String>> {
    let names_rows = |columns: &&Vec<String>| {
        let fit = |name: &String| {
            found.column(name).is_some_and(|column| !column.nullable && column.key_unfit.is_none())
        };
        !columns.is_empty() && columns.iter().all(fit)
    };
    let fit: Vec<&Vec<String>> =
        found.unique.iter().map(|(_, columns)| columns).filter(names_rows).collect();
    let is_own = |columns: &&&Vec<String>| match columns.as_slice() {
        [only] => own.is_some_and(|own| only.eq_ignore_ascii_case(own)),
        _ => false,
    };
    let own = fit.iter().find(is_own);
    own.or(fit.first().filter(|_| fit.len() == 1)).map(|columns| (*columns).clone())
}

/// Adds `company_group`, `company`, `unity`, `branch` and, last, `protheus_pk`.
fn protheus_columns(
    columns: &mut Vec<ColumnShape>,
    group: &str,
    layout: BranchLayout,
    wire: &TableName,
    fields: Vec<usize>,
) {
    let string = TypeName::plain(ColumnType::String);
    let mut add = |name: &str, from: ColumnSource| {
        if let Ok(name) = name.parse() {
            columns.push(ColumnShape { name, type_name: string, from, mask: None });
        }
        columns.len() - 1
    };
    let group_at = add("company_group", ColumnSource::Constant(group.to_owned()));
    let branch_field = branch_field(wire);
    let (company, unity) = (layout.company, layout.company + layout.unity);
    let slices =
        [("company", 0, company), ("unity", company, unity), ("branch", unity, usize::MAX)];
    let of = columns.iter().position(|c| c.name.as_str().eq_ignore_ascii_case(&branch_field));
    let mut add = |name: &str, from: ColumnSource| {
        if let Ok(name) = name.parse() {
            columns.push(ColumnShape { name, type_name: string, from, mask: None });
        }
    };
    for (name, from, to) in slices {
        let source = match of {
            Some(of) => ColumnSource::Slice { of, from, to },
            None => ColumnSource::Constant(String::new()),
        };
        add(name, source);
    }
    let parts = std::iter::once(group_at).chain(fields).collect();
    add("protheus_pk", ColumnSource::Joined(parts));
}

fn refuse_clashes(columns: &[ColumnShape]) -> Result<()> {
    if columns.len() > limits::TABLE_COLUMNS {
        let words = format!("{} columns, at most {}", columns.len(), limits::TABLE_COLUMNS);
        return Err(Error::new(Code::ColumnClash, words));
    }
    let mut seen = BTreeSet::new();
    for column in columns {
        let name = column.name.folded();
        let reserved = STAGING_COLUMNS.contains(&name) || name.eq_ignore_ascii_case(DELETED);
        if reserved {
            let words = format!("column {} has a name that Malote uses itself", column.name);
            return Err(Error::new(Code::ColumnClash, words));
        }
        if !seen.insert(name) {
            let words = format!("two columns are called {} in some case", column.name);
            return Err(Error::new(Code::ColumnClash, words));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
