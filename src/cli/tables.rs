//! Tables for the terminal.

use comfy_table::{CellAlignment, Table, presets};

/// A table without lines.
pub fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Right-aligns the columns from `numbers` on.
pub fn align(table: &mut Table, numbers: usize) {
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A table whose columns from `numbers` on are right-aligned.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>, numbers: usize) -> String {
    let mut table = plain();
    table.set_header(header);
    table.add_rows(rows);
    align(&mut table, numbers);
    table.trim_fmt()
}
