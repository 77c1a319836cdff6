//! A picture for a browser: boxes in columns by rank, and curves between them.

use std::fmt::Write as _;

use super::Shape;

/// Height of a box, and the gaps between boxes, in pixels.
const BOX_HEIGHT: usize = 36;
const GAP: (usize, usize) = (60, 20);
/// Width of a character of a name, and of the shortest box, in pixels.
const CHAR_WIDTH: usize = 8;
const BOX_WIDTH_MIN: usize = 100;

/// Where the boxes of a picture are.
struct Layout {
    box_width: usize,
    places: Vec<(usize, usize)>,
    width: usize,
    height: usize,
}

fn layout(shapes: &[Shape]) -> Layout {
    let longest = shapes.iter().map(|shape| shape.name.chars().count()).max().unwrap_or(0);
    let box_width = (longest * CHAR_WIDTH + 2 * CHAR_WIDTH).max(BOX_WIDTH_MIN);
    let mut rows: Vec<usize> = Vec::new();
    let mut place = |shape: &Shape| {
        if rows.len() <= shape.rank {
            rows.resize(shape.rank + 1, 0);
        }
        let row = rows[shape.rank];
        rows[shape.rank] += 1;
        (GAP.0 + shape.rank * (box_width + GAP.0), GAP.1 + row * (BOX_HEIGHT + GAP.1))
    };
    let places = shapes.iter().map(&mut place).collect();
    let width = rows.len() * (box_width + GAP.0) + GAP.0;
    let height = rows.iter().max().unwrap_or(&0) * (BOX_HEIGHT + GAP.1) + GAP.1;
    Layout { box_width, places, width, height }
}

/// Names need no escaping: they are made of letters, digits, '_' and '-'.
pub(super) fn draw(shapes: &[Shape]) -> String {
    let Layout { box_width, places, width, height } = layout(shapes);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n"
    );
    for (shape, to) in shapes.iter().zip(&places) {
        for (from_x, from_y) in shape.upstream.iter().filter_map(|up| places.get(*up)) {
            edge(&mut picture, (from_x + box_width, *from_y), *to);
        }
    }
    for (shape, (x, y)) in shapes.iter().zip(&places) {
        let state = shape.state.as_ref().map_or_else(String::new, |state| format!(" ({state})"));
        let (name, color) = (&shape.name, fill(shape.state.as_deref()));
        let (middle, base) = (x + box_width / 2, y + BOX_HEIGHT / 2 + 5);
        let _ = writeln!(
            picture,
            "  <g><title>{name}{state}</title><rect x=\"{x}\" y=\"{y}\" width=\"{box_width}\" height=\"{BOX_HEIGHT}\" rx=\"4\" fill=\"{color}\" stroke=\"#444\"/><text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">{name}</text></g>",
        );
    }
    picture.push_str("</svg>\n");
    picture
}

/// Draws a line between two boxes, from the right side of one to the left side of the other.
fn edge(picture: &mut String, (from_x, from_y): (usize, usize), (to_x, to_y): (usize, usize)) {
    let (start_y, end_y) = (from_y + BOX_HEIGHT / 2, to_y + BOX_HEIGHT / 2);
    let (leave, arrive) = (from_x + GAP.0 / 2, to_x.saturating_sub(GAP.0 / 2));
    let _ = writeln!(
        picture,
        "  <path d=\"M{from_x},{start_y} C{leave},{start_y} {arrive},{end_y} {to_x},{end_y}\" fill=\"none\" stroke=\"#888\"/>",
    );
}

fn fill(state: Option<&str>) -> &'static str {
    match state {
        Some("success") => "#cfe8cf",
        Some("failed" | "upstream_failed") => "#f3c6c6",
        Some("active") => "#cfe0f3",
        Some("up_for_retry") => "#f3e3c0",
        Some(_) => "#eeeeee",
        None => "#ffffff",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::diamond, *};

    #[test]
    fn a_browser_gets_a_box_for_each_task() {
        let picture = draw(&diamond());
        assert_eq!(picture.matches("<rect").count(), 4);
        assert_eq!(picture.matches("<path").count(), 4);
    }
}
