//! `vst run list-scenarios`: the scenarios that come with vst, in one table.

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use vst_common::exit::Exit;
use vst_common::scenario::library::LIBRARY;
use vst_common::scenario::{Scenario, check};

use crate::error::Failure;
use crate::output;

/// Columns of the table.
const WIDTH: u16 = 120;

pub(crate) fn list(json: bool) -> Result<Exit, Failure> {
    let checked = LIBRARY.iter().map(|(name, text)| Ok(check::parse(text, name, &[])?.scenario));
    let scenarios: Vec<Scenario> =
        checked.collect::<Result<_, _>>().map_err(|faults| crate::scenario_file::refuse(&faults))?;
    if json {
        let rows = scenarios.iter().map(|s| {
            serde_json::json!({
                "name": s.name, "family": s.family, "purpose": s.purpose, "parameters": s.parameters,
            })
        });
        output::result(&serde_json::Value::Array(rows.collect()).to_string())?;
        return Ok(Exit::Valid);
    }
    let line = LineStyle::none().fill('\u{2500}').junction('\u{2500}');
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(line))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(["name", "family", "purpose", "default size"]);
    for scenario in &scenarios {
        let size: Vec<String> =
            scenario.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.add_row([&scenario.name, &scenario.family, &scenario.purpose, &size.join(" ")]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    output::result(&table.trim_fmt())?;
    Ok(Exit::Valid)
}
