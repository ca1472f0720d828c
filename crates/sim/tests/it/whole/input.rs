//! Real input: Chinook and the Brazilian municipalities, from `MALOTE_TEST_DATA`.

use std::path::{Path, PathBuf};

use super::erp::Erp;

/// Folder of the data; tests that need it are filtered out by name (`real_input::`) where it is missing.
pub(crate) fn folder() -> PathBuf {
    let beside = sim::servers::crate_folder().join("../../../shared/data");
    let folder = runtime::config::variable("MALOTE_TEST_DATA").map_or(beside, PathBuf::from);
    assert!(
        folder.join("municipios.csv").exists(),
        "real input is missing; MALOTE_TEST_DATA names its folder"
    );
    folder
}

/// Tables of Chinook as PostgreSQL spells them.
pub(crate) const CHINOOK: [&str; 11] = [
    "album",
    "artist",
    "customer",
    "employee",
    "genre",
    "invoice",
    "invoice_line",
    "media_type",
    "playlist",
    "playlist_track",
    "track",
];

/// Tables of Chinook as SQLite spells them.
pub(crate) const CHINOOK_SQLITE: [&str; 11] = [
    "Album",
    "Artist",
    "Customer",
    "Employee",
    "Genre",
    "Invoice",
    "InvoiceLine",
    "MediaType",
    "Playlist",
    "PlaylistTrack",
    "Track",
];

pub(crate) const BRAZIL: [&str; 2] = ["estados", "municipios"];

/// Runs Chinook's own script, without its lines that make the database.
pub(crate) async fn chinook(erp: &Erp) {
    let script = std::fs::read_to_string(folder().join("Chinook_PostgreSql.sql")).unwrap();
    let lines = script.lines().filter(|line| {
        !line.starts_with("DROP DATABASE")
            && !line.starts_with("CREATE DATABASE")
            && !line.starts_with("\\c")
    });
    erp.run(&lines.collect::<Vec<_>>().join("\n")).await.unwrap();
}

/// A copy of Chinook's SQLite file.
pub(crate) fn chinook_copy(to: &Path) {
    std::fs::copy(folder().join("Chinook_Sqlite.sqlite"), to).unwrap();
    let mut permissions = std::fs::metadata(to).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(to, permissions).unwrap();
}

/// States and municipalities of Brazil, in types both databases have.
pub(crate) async fn brazil(erp: &Erp) {
    erp.run(
        "CREATE TABLE estados (codigo_uf integer PRIMARY KEY, uf varchar(2) NOT NULL, nome varchar(100) NOT NULL,
            latitude double precision NOT NULL, longitude double precision NOT NULL, regiao varchar(12) NOT NULL);
         CREATE TABLE municipios (codigo_ibge integer PRIMARY KEY, nome varchar(100) NOT NULL,
            latitude double precision NOT NULL, longitude double precision NOT NULL, capital integer NOT NULL,
            codigo_uf integer NOT NULL, siafi_id varchar(4) NOT NULL, ddd integer NOT NULL,
            fuso_horario varchar(32) NOT NULL)",
    )
    .await
    .unwrap();
    for table in BRAZIL {
        let text = std::fs::read_to_string(folder().join(format!("{table}.csv"))).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        for some in lines.chunks(500) {
            let rows: Vec<String> =
                some.iter().map(|line| format!("({})", literals(line))).collect();
            erp.run(&format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await.unwrap();
        }
    }
}

/// A CSV line without quotes as SQL literals.
fn literals(line: &str) -> String {
    assert!(!line.contains('"'));
    let quoted = line.split(',').map(|cell| format!("'{}'", cell.replace('\'', "''")));
    quoted.collect::<Vec<_>>().join(", ")
}
