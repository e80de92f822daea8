fn main() {
    leyden_setup::link_libtorch();
    leyden_setup::record_revision();
}
