# A release is for this image's own half, and for nothing else that the key holder keeps.
deny contains msg if {
	data.plugin
	not resource_is_ours
	msg := sprintf("the resource asked for is not image %s's", [image_id])
}

resource_is_ours if {
	data.plugin == "resource"
	image_id in data["resource-path"]
}
