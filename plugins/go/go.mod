module example.com/sample-plugin

go 1.27.1

require (
	go.bytecodealliance.org/pkg v0.4.0
	signalbus v0.1.0
)

replace (
	go.bytecodealliance.org/pkg => ./bindings/pkg
	signalbus => ./bindings
)
