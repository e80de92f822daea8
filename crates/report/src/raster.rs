//! PNG files from SVG text.
//!
//! Text needs a font and a fresh machine may have none, so one is linked in: Ubuntu Light (Ubuntu
//! Font Licence 1.0) from the crate `epaint_default_fonts`. System fonts are never used, so that
//! equal runs give equal images everywhere.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

/// Pixels per CSS pixel, for print and high-density screens.
const SCALE: f32 = 2.0;

/// Renders an SVG document as PNG bytes, two pixels per unit.
///
/// # Errors
/// A message if the document is not SVG or has no area.
pub fn png(svg: &str) -> Result<Vec<u8>, String> {
    let options =
        Options { font_family: "Ubuntu".to_owned(), fontdb: fonts(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let size = tree.size();
    let (width, height) = ((size.width() * SCALE).ceil(), (size.height() * SCALE).ceil());
    let mut pixels = Pixmap::new(width as u32, height as u32)
        .ok_or_else(|| format!("an image of {width} × {height} pixels cannot be allocated"))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}

fn fonts() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    FONTS
        .get_or_init(|| {
            let mut database = Database::new();
            database.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
            let family = database
                .faces()
                .next()
                .and_then(|face| face.families.first())
                .map(|(name, _)| name.clone());
            database.set_sans_serif_family(family.unwrap_or_default());
            Arc::new(database)
        })
        .clone()
}
