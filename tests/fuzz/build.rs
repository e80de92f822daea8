fn main() {
    leyden_setup::link_libtorch();
}
