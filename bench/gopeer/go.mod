module neolink/bench/gopeer

go 1.18

require github.com/hashicorp/yamux v0.1.1
