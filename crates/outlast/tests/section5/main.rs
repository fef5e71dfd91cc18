//! DESIGN section 5, row by row, end to end: what goes wrong upstream, and who answers, what the client is told, how often
//! each target is asked and what the record says of it. In both client dialects, streamed and whole.
//!
//! The rows are data in `rows_*.rs`; `table.rs` holds a gateway and three fakes to them. What is no row of a table stands
//! in `proofs.rs` and `money.rs`.

#[path = "../common/mod.rs"]
mod common;
mod money;
mod proofs;
mod rows_content;
mod rows_ends;
mod rows_transport;
mod table;

use outlast_model::Failure;
use table::hold_to;

#[test]
fn transport_and_accounts_end_as_section_5_promises() {
    hold_to(rows_transport::ROWS);
}

#[test]
fn content_ends_as_section_5_promises() {
    hold_to(rows_content::ROWS);
}

#[test]
fn money_permission_and_the_end_of_every_path_are_as_section_5_promises() {
    hold_to(rows_ends::ROWS);
}

#[test]
fn every_failure_has_a_row() {
    let rows = [rows_transport::ROWS, rows_content::ROWS, rows_ends::ROWS].concat();
    for failure in Failure::ALL {
        // The client that leaves is no request with a reply: `proofs` has it. Names that do not resolve and handshakes
        // that fail need a network and certificates: `server_tls` and the classification's own tests have them.
        if matches!(failure.to_string().as_str(), "cancelled" | "connection:dns" | "connection:tls") {
            continue;
        }
        let name = failure.to_string();
        let met = rows
            .iter()
            .any(|row| row.class == failure.class() && (failure.detail().is_none() || row.trail.contains(&name)));
        assert!(met, "no row meets {name}");
    }
}
