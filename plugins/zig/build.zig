const std = @import("std");

pub fn build(b: *std.Build) void {
    const target = b.resolveTargetQuery(.{ .cpu_arch = .wasm32, .os_tag = .wasi });
    const optimize = b.option(std.builtin.Optimize, "optimize", "safe by default") orelse .safe;

    const bindings = b.createModule(.{
        .root_source_file = b.path("bindings/bulk_sender_plugin.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
    });
    bindings.addCSourceFile(.{ .file = b.path("bindings/bulk_sender_plugin.c") });
    bindings.addObjectFile(b.path("bindings/bulk_sender_plugin_component_type.o"));

    const plugin = b.addExecutable(.{
        .name = "sample-plugin",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/plugin.zig"),
            .target = target,
            .optimize = optimize,
            .single_threaded = true,
            .imports = &.{.{ .name = "bindings", .module = bindings }},
        }),
    });
    plugin.wasi_exec_model = .reactor;
    plugin.entry = .disabled;
    plugin.stack_size = 128 * 1024;

    const copy = b.addUpdateSourceFiles();
    copy.addCopyFileToSource(plugin.getEmittedBin(), "plugin.wasm");
    b.getInstallStep().dependOn(&copy.step);
}
