//! The two texts of a report, with the oddities that its style asks for.

use chrono::{NaiveDateTime, TimeDelta};

use super::{Defect, Roll, Style};

/// The columns that the plant reads, and some that it does not.
const COLUMNS: [&str; 14] = [
    "Defect ID",
    "Defect Class",
    "Severity",
    "Camera",
    "cdAbsBoxCenter [mm]",
    "cdBoxCenter [mm]",
    "length [mm]",
    "mdAbsBoxCenter [mm]",
    "mdBoxCenter [mm]",
    "size [mm]",
    "width [mm]",
    "Time",
    "Lane",
    "Image",
];

/// Returns `header.csv`: three pairs of label and value on each line.
pub(super) fn header(roll: &Roll) -> Vec<u8> {
    let style = roll.style;
    let length = |value: Option<f64>| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{} mm", number(style, value)))
    };
    let text = |value: Option<&String>| value.map_or_else(|| "-".to_owned(), |text| quoted(text));
    let created = roll.stop_time + TimeDelta::minutes(1);
    let pairs = [
        ("Roll:", roll.aoi_no.clone()),
        ("Roll Start:", time(style, roll.start_time)),
        ("Roll Stop:", time(style, roll.stop_time)),
        ("Job:", format!("job-{}", roll.aoi_no)),
        ("Report Creation Date:", time(style, created)),
        ("Inspected Width:", length(roll.inspected_width)),
        ("Inspected Length:", length(roll.inspected_length)),
        ("Material Width:", length(roll.material_width)),
        ("Run Length:", length(roll.run_length)),
        ("Recipe:", text(roll.recipe.as_ref())),
        ("Comment:", text(roll.comment.as_ref())),
        ("", String::new()),
    ];
    let lines = pairs
        .chunks(3)
        .map(|row| row.iter().map(|(label, value)| format!("{label};{value}")).collect::<Vec<_>>().join(";"));
    encoded(style, &lines.collect::<Vec<_>>().join("\r\n"))
}

/// Returns `defectlist.csv`.
pub(super) fn defects(roll: &Roll) -> Vec<u8> {
    let style = roll.style;
    let mut order: Vec<usize> = (0..COLUMNS.len()).collect();
    if style.shuffled {
        order.reverse();
    }
    let line =
        |cells: &[String]| order.iter().map(|&column| cells[column].clone()).collect::<Vec<_>>().join(";");
    let mut lines = vec![line(&COLUMNS.map(str::to_owned))];
    lines.extend(roll.defects.iter().map(|defect| line(&cells(style, defect))));
    encoded(style, &lines.join("\r\n"))
}

fn cells(style: Style, defect: &Defect) -> [String; 14] {
    let length = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| number(style, value));
    let text = |value: Option<&String>| value.map_or_else(|| "-".to_owned(), |text| quoted(text));
    [
        defect.id.to_string(),
        text(defect.class.as_ref()),
        text(defect.severity.as_ref()),
        "3".to_owned(),
        length(defect.cd_abs),
        length(defect.cd),
        length(defect.length),
        length(defect.md_abs),
        length(defect.md),
        length(defect.size),
        length(defect.width),
        defect.time.map_or_else(|| "-".to_owned(), |moment| time(style, moment)),
        "A".to_owned(),
        format!("{:06}.jpg", defect.id),
    ]
}

fn number(style: Style, value: f64) -> String {
    let text = format!("{value:.2}");
    if style.decimal_comma { text.replace('.', ",") } else { text }
}

fn time(style: Style, moment: NaiveDateTime) -> String {
    let format = if style.german_time { "%d.%m.%Y %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    moment.format(format).to_string()
}

fn quoted(text: &str) -> String {
    if text.contains([';', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn encoded(style: Style, text: &str) -> Vec<u8> {
    let text = format!("{text}\r\n");
    if style.gbk {
        return encoding_rs::GBK.encode(&text).0.into_owned();
    }
    let mark: &[u8] = if style.byte_order_mark { b"\xEF\xBB\xBF" } else { b"" };
    [mark, text.as_bytes()].concat()
}
